//! Rewriting a text in place: what is not replaced stays as it was, to the byte.

use std::ops::Range;

use serde_json::value::RawValue;

/// Pieces of a text that are to be something else.
#[derive(Debug, Default)]
pub struct Splices(Vec<(Range<usize>, String)>);

impl Splices {
    /// These bytes of the text are to be this.
    pub fn replace(&mut self, at: Range<usize>, with: String) {
        self.0.push((at, with));
    }

    /// This string of a JSON text, which was read from it without copying, is to be another one.
    pub fn replace_json(&mut self, text: &str, value: &RawValue, with: &str) {
        let start = (value.get().as_ptr() as usize).checked_sub(text.as_ptr() as usize);
        if let (Some(start), Ok(with)) = (start, serde_json::to_string(with)) {
            self.replace(start..start.saturating_add(value.get().len()), with);
        }
    }

    /// The text with everything replaced. A piece that is not in it, or overlaps another one, stays as it is.
    pub fn apply(mut self, text: &str) -> Vec<u8> {
        self.0.sort_by_key(|(at, _)| at.start);
        let grown: usize = self.0.iter().map(|(_, with)| with.len()).sum();
        let (mut made, mut done) = (Vec::with_capacity(text.len() + grown), 0);
        for (at, with) in self.0 {
            let Some(before) = text.as_bytes().get(done..at.start).filter(|_| at.end <= text.len()) else {
                continue;
            };
            made.extend_from_slice(before);
            made.extend_from_slice(with.as_bytes());
            done = at.end.max(at.start);
        }
        made.extend_from_slice(&text.as_bytes()[done..]);
        made
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_stays_as_it_was() {
        let mut splices = Splices::default();
        splices.replace(5..6, "bbb".into());
        splices.replace(0..1, String::new());
        splices.replace(3..9, "overlaps".into());
        splices.replace(8..99, "beyond".into());
        assert_eq!(splices.apply("a23456789"), b"23overlaps".to_vec());
        let text = r#"{ "url" : "a\/b", "n": 1.50 }"#;
        #[derive(serde::Deserialize)]
        struct It<'a> {
            #[serde(borrow)]
            url: &'a RawValue,
        }
        let it: It = serde_json::from_str(text).expect("JSON");
        let mut splices = Splices::default();
        splices.replace_json(text, it.url, "x\"y");
        let made = String::from_utf8(splices.apply(text)).expect("text");
        assert_eq!(made, r#"{ "url" : "x\"y", "n": 1.50 }"#);
    }
}
