//! The dashboard at `/`: one page and what it is made of, all of it within the program.
//!
//! It reads `/api/v1` like anybody else, and needs nothing that is not there for every user of this
//! machine. Its policy lets it load from the gateway alone, and run no script that is not a file here.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::error::{HttpError, no_such_path};
use super::range::is_known;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// A file of the page.
struct File {
    name: &'static str,
    kind: &'static str,
    content: &'static str,
}

const INDEX: File = File { name: "", kind: HTML, content: include_str!("page/index.html") };
const FILES: [File; 7] = [
    File { name: "style.css", kind: STYLE, content: include_str!("page/style.css") },
    File { name: "app.js", kind: SCRIPT, content: include_str!("page/app.js") },
    File { name: "dom.js", kind: SCRIPT, content: include_str!("page/dom.js") },
    File { name: "chart.js", kind: SCRIPT, content: include_str!("page/chart.js") },
    File { name: "now.js", kind: SCRIPT, content: include_str!("page/now.js") },
    File { name: "savings.js", kind: SCRIPT, content: include_str!("page/savings.js") },
    File { name: "site.js", kind: SCRIPT, content: include_str!("page/site.js") },
];

/// What changes when anything of the page does: it is asked for again, and seldom sent again.
static ETAG: LazyLock<String> = LazyLock::new(|| {
    let mut hash = blake3::Hasher::new();
    std::iter::once(&INDEX).chain(&FILES).for_each(|file| _ = hash.update(file.content.as_bytes()));
    format!("\"{}\"", &hash.finalize().to_hex()[..16])
});

pub(super) async fn index(headers: HeaderMap) -> Response {
    answer(&INDEX, &headers)
}

pub(super) async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Result<Response, HttpError> {
    match FILES.iter().find(|file| file.name == name) {
        Some(file) => Ok(answer(file, &headers)),
        None => Err(no_such_path().await),
    }
}

fn answer(file: &'static File, asked: &HeaderMap) -> Response {
    let headers = [
        (header::CONTENT_TYPE, file.kind),
        (header::CACHE_CONTROL, "no-cache"),
        (header::ETAG, ETAG.as_str()),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    if is_known(asked, &ETAG) {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    (headers, file.content).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_holds_nothing_that_its_policy_forbids() {
        assert!(!INDEX.content.contains("style=") && !INDEX.content.contains("<style"));
        let handlers = ["onclick=", "onload=", "onchange=", "onerror=", "oninput="];
        assert!(!handlers.iter().any(|it| INDEX.content.contains(it)), "handlers are set by scripts");
        for file in std::iter::once(&INDEX).chain(&FILES) {
            let it = file.content.replace("http://www.w3.org/2000/svg", "");
            for forbidden in ["http://", "https://", "//cdn", "innerHTML", "eval(", "@import"] {
                assert!(!it.contains(forbidden), "{} has {forbidden}", file.name);
            }
            let script =
                file.kind == SCRIPT && (it.contains("setAttribute(\"style") || it.contains("cssText"));
            assert!(!script, "{} writes style attributes", file.name);
        }
    }

    #[test]
    fn all_that_the_page_asks_for_is_here() {
        let texts = std::iter::once(&INDEX).chain(&FILES).map(|file| file.content);
        for text in texts {
            let asked = text.split("/assets/").skip(1).map(|rest| rest.split('"').next().unwrap_or_default());
            let imported =
                text.split("from \"./").skip(1).map(|rest| rest.split('"').next().unwrap_or_default());
            for name in asked.chain(imported) {
                assert!(FILES.iter().any(|file| file.name == name), "{name}");
            }
        }
        let all: usize = std::iter::once(&INDEX).chain(&FILES).map(|file| file.content.len()).sum();
        assert!(all < 100_000, "{all} bytes");
    }
}
