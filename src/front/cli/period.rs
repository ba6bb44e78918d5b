//! Which hours a question about the books is about, as flags.

use clap::{Args, CommandFactory};

use super::escape;
use crate::front::http::span;

/// Which hours, UTC; all that the books hold, if nothing is said
#[derive(Debug, Clone, Args)]
pub(super) struct Period {
    /// Only the last so many days or hours, such as 7d or 24h
    #[arg(long, value_name = "SPAN", value_parser = since, conflicts_with_all = ["from", "to"])]
    since: Option<String>,
    /// From this day or time on, such as 2026-11-01 or 2026-11-01T08:00:00Z (UTC)
    #[arg(long, value_name = "DAY", value_parser = from)]
    from: Option<String>,
    /// Up to this day, counted whole, or up to this time (UTC)
    #[arg(long, value_name = "DAY", value_parser = to)]
    to: Option<String>,
}

fn since(text: &str) -> Result<String, String> {
    span::hours(Some(text), None, None).map(|_| text.to_owned())
}

fn from(text: &str) -> Result<String, String> {
    span::hours(None, Some(text), None).map(|_| text.to_owned())
}

fn to(text: &str) -> Result<String, String> {
    span::hours(None, None, Some(text)).map(|_| text.to_owned())
}

impl Period {
    /// For the query of a request to the API, with a leading `&`. Ends the program (wrong usage) if the
    /// period ends before it begins.
    pub(super) fn query(&self) -> String {
        let hours = span::hours(self.since.as_deref(), self.from.as_deref(), self.to.as_deref());
        if let Err(error) = hours {
            super::Cli::command().error(clap::error::ErrorKind::ValueValidation, error).exit();
        }
        let parts = [("since", &self.since), ("from", &self.from), ("to", &self.to)];
        let parts = parts.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)));
        parts.map(|(name, value)| format!("&{name}={}", escape::percent(value))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_becomes_a_query() {
        let period = |since: Option<&str>, from: Option<&str>, to: Option<&str>| Period {
            since: since.map(str::to_owned),
            from: from.map(str::to_owned),
            to: to.map(str::to_owned),
        };
        assert_eq!(period(None, None, None).query(), "");
        assert_eq!(period(Some("7d"), None, None).query(), "&since=7d");
        assert_eq!(
            period(None, Some("2026-11-01T08:00:00+02:00"), Some("2026-11-07")).query(),
            "&from=2026-11-01T08%3A00%3A00%2B02%3A00&to=2026-11-07"
        );
        assert!(from("yesterday").is_err() && since("7").is_err() && to("2026-13-01").is_err());
    }
}
