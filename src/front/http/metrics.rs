//! `/metrics`, for Prometheus and what understands its formats: OpenMetrics for those who accept it,
//! else the older text.

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, prometheus_text, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::error::HttpError;
use crate::node::Node;
use crate::node::figures::{Family, Kind};

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) async fn metrics(
    State(node): State<Node>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, HttpError> {
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let open = accepted.contains("application/openmetrics-text");
    let text = encode(node.figures().await, open).map_err(|_| HttpError::internal("metrics"))?;
    Ok(([(header::CONTENT_TYPE, if open { OPENMETRICS } else { TEXT })], text))
}

/// The figures as text, in one of two formats.
fn encode(figures: Vec<Family>, open: bool) -> Result<String, std::fmt::Error> {
    // Made for each answer: what counts is the ledger, and nothing is counted twice.
    let mut registry = Registry::with_prefix("branchline");
    registry.register_collector(Box::new(Figures(figures)));
    let mut text = String::with_capacity(16 << 10);
    if open {
        text::encode(&mut text, &registry)?
    } else {
        prometheus_text::encode(&mut text, &registry)?
    }
    Ok(text)
}

#[derive(Debug)]
struct Figures(Vec<Family>);

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        for family in self.0.iter().filter(|family| !family.samples.is_empty()) {
            let (name, unit) = unit(&family.name);
            let kind = match family.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
            };
            let mut encoder = encoder.encode_descriptor(name, family.help, unit.as_ref(), kind)?;
            for sample in &family.samples {
                if sample.labels.is_empty() {
                    value(&mut encoder, family.kind, sample.value)?;
                } else {
                    let mut labelled = encoder.encode_family(&sample.labels)?;
                    value(&mut labelled, family.kind, sample.value)?;
                }
            }
        }
        Ok(())
    }
}

fn value(encoder: &mut MetricEncoder, kind: Kind, value: u64) -> Result<(), std::fmt::Error> {
    match kind {
        Kind::Counter => encoder.encode_counter::<NoLabelSet, u64, f64>(&value, None),
        Kind::Gauge => encoder.encode_gauge(&value),
    }
}

/// A name without its unit, and the unit.
fn unit(name: &str) -> (&str, Option<Unit>) {
    let units = [("_bytes", Unit::Bytes), ("_seconds", Unit::Seconds)];
    let found = units.into_iter().find_map(|(ending, unit)| Some((name.strip_suffix(ending)?, Some(unit))));
    found.unwrap_or((name, None))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::figures::Sample;

    #[test]
    fn both_formats() {
        let sample = |source: &str, value| Sample { labels: vec![("source", source.into())], value };
        let figures = || {
            let (help, samples) = ("Content.", vec![sample("wan", 7), sample("peer", 0)]);
            let counter = Family { name: "delivered_bytes".into(), kind: Kind::Counter, help, samples };
            let samples = vec![Sample { labels: Vec::new(), value: u64::MAX }];
            vec![counter, Family { name: "members".into(), kind: Kind::Gauge, help: "Members.", samples }]
        };
        let open = encode(figures(), true).expect("a string");
        for line in [
            "# TYPE branchline_delivered_bytes counter\n# UNIT branchline_delivered_bytes bytes\n",
            "branchline_delivered_bytes_total{source=\"wan\"} 7\n",
            "branchline_members 18446744073709551615\n# EOF\n",
        ] {
            assert!(open.contains(line), "{line} is not in {open}");
        }
        let text = encode(figures(), false).expect("a string");
        assert!(text.contains("# TYPE branchline_delivered_bytes_total counter\n"), "{text}");
        assert!(!text.contains("# EOF") && !text.contains("# UNIT"), "{text}");
    }
}
