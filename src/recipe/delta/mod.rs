//! Contents described by those of an older version.
//!
//! Contents are cut into blocks of some megabytes, each a patch to those parts of the older contents that are
//! likely to be like it ([`pair`]). A patch goes along the old bytes and says what was added to each of them
//! ([`align`]): where code has moved, nearly all bytes stay the same and addresses change by the same little,
//! so that what is to be added is mostly zero, and the rest repeats itself. That is worth two to three times
//! what matches alone are.

mod align;
mod pair;
mod patch;

pub use pair::{Cut, pair};
pub use patch::{apply, compress, make};
