//! Bundles: packages that leave this node for a disk, and those that come from one.

mod catalog;
mod export;
mod feed;
mod import;
mod intake;
mod report;
mod turn;

pub use export::{ExportError, Exported};
pub use feed::Source;
pub use import::{Import, ImportError};
pub use report::{CatalogNews, ExportedPackage, Imported, ImportedPackage, News, Written};
