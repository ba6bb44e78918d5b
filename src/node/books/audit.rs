//! Recomputing what the books say from what was written down.

use serde::{Deserialize, Serialize};

use super::{Books, lock};
use crate::core::ledger::{Row, RowKey, Totals};

/// The most faults that are told.
const MOST: usize = 100;

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// Rows that were read from the disk.
    pub rows: usize,
    /// Their sum.
    pub totals: Totals,
    /// What does not add up, in words.
    pub faults: Vec<String>,
}

impl Books {
    /// Writes the books down, reads every row back from the disk, checks that each adds up, and that all
    /// of them together are what the agent answers from. Nothing is booked meanwhile.
    pub fn audit(&self) -> Audit {
        let mut disk = lock(&self.disk);
        let mut state = lock(&self.state);
        disk.note(state.take_changes());
        let (rows, blobs) = disk.unflushed();
        let (rows, handed) = state.look_up(rows, blobs);
        let mut audit = Audit::default();
        if let Err(error) = disk.flush(&rows, &handed) {
            audit.faults.push(format!("the ledger cannot be written: {error}"));
        }
        let mut sum = Row::default();
        for (key, row) in disk.rows() {
            audit.rows += 1;
            sum.add(&row);
            if let Some(fault) = row.fault() {
                audit.fault(format!("{}: {fault}", name(&key)));
            }
            if state.ledger.row_of(&key) != Some(&row) {
                audit.fault(format!("{}: the agent answers from another figure", name(&key)));
            }
        }
        if audit.rows != state.ledger.len() {
            let (disk, memory) = (audit.rows, state.ledger.len());
            audit.fault(format!("{disk} rows are on the disk, and {memory} in memory"));
        }
        audit.totals = sum.totals;
        audit
    }
}

impl Audit {
    fn fault(&mut self, fault: String) {
        if self.faults.len() < MOST {
            self.faults.push(fault);
        }
    }
}

fn name(key: &RowKey) -> String {
    format!("hour {}, {}, front {}", key.hour, key.package, key.front.as_str())
}
