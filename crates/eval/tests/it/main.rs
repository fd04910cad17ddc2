//! Statistics against other packages' numbers, reports of preferences, and graders over published data.

mod agreement;
mod graders;
mod preference;
