//! `branchline orders`: what admins have ordered, who did, and when.

use clap::Args;
use jiff::Timestamp;

use super::Output;
use super::client::Target;
use super::show::table;
use crate::core::orders::{Order, Orders};
use crate::node::errands::AllOrders;

#[derive(Debug, Args)]
pub(super) struct ShowOrders {
    /// Those that were taken back, too
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    output: Output,
}

impl ShowOrders {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let orders: AllOrders = self.target.json("/api/v1/orders").await?;
        if self.output.json {
            return super::print_json(&orders);
        }
        let mut rows = vec![["FOR", "ORDER", "WHAT", "BY", "WHEN"].map(str::to_owned).to_vec()];
        for (whom, orders) in [("site", &orders.site), ("node", &orders.node)] {
            rows.extend(self.rows(whom, orders));
        }
        match rows.len() {
            1 => super::print(
                "nothing is ordered; see 'branchline seed', 'branchline pin' and 'branchline wan'",
            ),
            _ => super::print(&table(&rows)),
        }
    }

    fn rows(&self, whom: &str, orders: &Orders) -> Vec<Vec<String>> {
        let shown = orders.iter().filter(|(_, order)| self.all || order.what.is_some());
        let row = |(name, order): (&str, &Order)| {
            let at =
                i64::try_from(order.stamp.at_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
            let at = at.map_or_else(String::new, |at| at.strftime("%Y-%m-%d %H:%M:%SZ").to_string());
            vec![whom.to_owned(), name.to_owned(), what(order), order.by.clone(), at]
        };
        shown.map(row).collect()
    }
}

/// The order itself, shortly.
fn what(order: &Order) -> String {
    let Some(what) = &order.what else { return "taken back".into() };
    let said = what.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
    let said: Vec<String> = said.map(|(name, value)| format!("{name}: {}", plain(value))).collect();
    said.join(", ").chars().take(100).collect()
}

fn plain(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.lines().next().unwrap_or_default().to_owned(),
        serde_json::Value::Object(map) => map.values().map(plain).collect::<Vec<_>>().join(" "),
        value => value.to_string(),
    }
}
