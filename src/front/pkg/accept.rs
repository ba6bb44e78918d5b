//! What a client accepts (RFC 9110, section 12.5.1), as far as fronts have to tell representations apart.

/// How much a client likes a media type that it names, from 0 to 1000; none if it does not name it.
fn quality(accept: &str, fits: impl Fn(&str) -> bool) -> Option<u32> {
    let range = |range: &str| {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next()?.to_ascii_lowercase();
        let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        let quality = quality.map_or(Some(1.0), |text| text.trim().parse::<f64>().ok())?;
        fits(&name).then_some((quality.clamp(0.0, 1.0) * 1000.0) as u32)
    };
    accept.split(',').filter_map(range).max()
}

/// Whether a client likes one kind of representation at least as well as another; what it does not name
/// at all, it does not like.
pub fn prefers(accept: Option<&str>, one: &[&str], other: &[&str]) -> bool {
    let of = |names: &[&str]| accept.and_then(|accept| quality(accept, |name| names.contains(&name)));
    of(one).is_some_and(|one| one > 0 && one >= of(other).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_what_they_like_best() {
        let json = |accept| prefers(Some(accept), &["a/json", "b/json"], &["text/html"]);
        for yes in ["a/json", "A/JSON;q=0.5, text/html;q=0.1", "text/html , b/json; v=1; q=1", "a/json;q=7"] {
            assert!(json(yes), "{yes}");
        }
        for no in ["", "*/*", "text/html", "a/json;q=0", "a/json;q=0.2,text/html;q=0.3", "a/json;q=x", ",;,"]
        {
            assert!(!json(no), "{no}");
        }
        assert!(!prefers(None, &["a/json"], &[]));
    }
}
