//! Statistics against other packages' numbers.

mod agreement;
