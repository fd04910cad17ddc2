//! Statistics against other packages' numbers, and reports of preferences.

mod agreement;
mod preference;
