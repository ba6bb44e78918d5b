//! Which objects of an upstream are likely to be versions of one thing: by their names alone.

use std::borrow::Cow;

/// What may be looked into, by the end of its name.
const ARCHIVES: [&str; 24] = [
    ".apk", ".appv", ".appx", ".conda", ".crate", ".deb", ".egg", ".gem", ".gz", ".jar", ".msix", ".nupkg",
    ".pkg", ".tar", ".tbz", ".tgz", ".txz", ".udeb", ".vsix", ".war", ".whl", ".xz", ".zip", ".zst",
];
/// A name of so many hexadecimal digits is a hash, and says nothing.
const HASH: usize = 32;
/// Names that are not the same but for their numbers have to have this part of them in common, in percent.
const IN_COMMON: usize = 60;

/// A path without its query, which may be a secret and says nothing of versions.
pub fn place(path: &str) -> &str {
    path.split(['?', '#']).next().unwrap_or_default()
}

/// Whether something with this path may be an archive or a compressed file.
pub fn may_be_opened(path: &str) -> bool {
    let name = name(path).to_ascii_lowercase();
    ARCHIVES.iter().any(|end| name.ends_with(end)) || (is_hash(&name) && !path.contains("/manifests/"))
}

/// Whatever is a version of the same thing has the same; much else may have it, too.
pub fn family(path: &str) -> String {
    let name = name(path);
    if is_hash(&name) {
        return place(path).rsplit_once('/').unwrap_or_default().0.to_owned();
    }
    let letters = letters(&name);
    let mut words = letters.split('#').filter(|word| !word.is_empty());
    let (first, last) = (words.next().unwrap_or_default(), words.next_back().unwrap_or_default());
    format!("{first}#{last}")
}

/// How much one path looks like a version of the other: 0 for not at all, more for more.
pub fn likeness(one: &str, other: &str) -> usize {
    if family(one) != family(other) {
        return 0;
    }
    let (name, known) = (name(one), name(other));
    if is_hash(&name) {
        return 1;
    }
    let (name, known) = (letters(&name), letters(&known));
    if name == known {
        return usize::MAX;
    }
    let common = name.bytes().zip(known.bytes()).take_while(|(one, other)| one == other).count();
    if common * 100 >= name.len().max(known.len()) * IN_COMMON { common } else { 0 }
}

/// The name of a file. Registries of cargo have it in the folders: `NAME/VERSION/download`, or a hash there.
fn name(path: &str) -> Cow<'_, str> {
    let mut parts = place(path).rsplit('/');
    let name = parts.next().unwrap_or_default();
    match (parts.next(), parts.next()) {
        (Some(version), Some(of))
            if version.starts_with(|first: char| first.is_ascii_digit())
                && (name == "download" || is_hash(name)) =>
        {
            format!("{of}-{version}.crate").into()
        }
        _ => name.into(),
    }
}

fn is_hash(name: &str) -> bool {
    let hex = name.rsplit(':').next().unwrap_or_default();
    hex.len() >= HASH && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A name without what versions differ in: a `#` in the place of each run of anything but letters.
fn letters(name: &str) -> String {
    let mut letters = String::with_capacity(name.len());
    for char in name.chars() {
        if char.is_alphabetic() {
            letters.extend(char.to_lowercase());
        } else if !letters.ends_with('#') {
            letters.push('#');
        }
    }
    letters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_alike() {
        for (one, other) in [
            (
                "pool/o/openjdk-17-jre_17.0.19+10-1~deb12u2_amd64.deb",
                "openjdk-17-jre_17.0.21.1+2-1~deb12u1_amd64.deb",
            ),
            (
                "https://x/a/numpy-2.2.0-cp311-cp311-manylinux_2_17_x86_64.whl",
                "y/numpy-2.2.1-cp311-cp311-manylinux_2_17_x86_64.whl",
            ),
            ("typescript/-/typescript-5.6.2.tgz", "typescript/-/typescript-5.6.3.tgz"),
            (
                "https://x/crates/serde/1.0.1/download",
                "http://hub/cargo/c/crates/serde/1.0.2/0123456789abcdef0123456789abcdef",
            ),
        ] {
            assert_eq!(likeness(one, other), usize::MAX, "{one}");
        }
        let dist = "dists/b/main/binary-amd64/by-hash/SHA256/";
        let of = |digit: &str| format!("{dist}{}", digit.repeat(64));
        assert_eq!(likeness(&of("a"), &of("b")), 1);
        // A member may ask for anything.
        assert_eq!(likeness(&format!("{}?ä=é\u{1f600}ü", of("a")), &format!("{}#éé", of("b"))), 1);
        assert_eq!((family(""), family("/"), family("?é")), ("#".into(), "#".into(), "#".into()));
        assert!(
            likeness("app_1.0rc1_all.deb", "app_1.0_all.deb") == 0 && likeness("a-1.0.zip", "b-1.0.zip") == 0
        );
        assert!(likeness("application-server_1.0.deb", "application-server-2_1.0~rc_x.deb") > 0);
    }

    #[test]
    fn what_may_be_opened_is_told_by_its_name() {
        for name in
            ["a/b.deb", "x.TGZ", "v2/app/blobs/sha256:0123456789abcdef0123456789abcdef", "x.whl?sig=1"]
        {
            assert!(may_be_opened(name), "{name}");
        }
        for name in ["InRelease", "a.html", "v2/app/manifests/sha256:0123456789abcdef0123456789abcdef", ""] {
            assert!(!may_be_opened(name), "{name}");
        }
    }
}
