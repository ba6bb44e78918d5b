//! Archives of many kinds, by the tools that make them: opened and put together again.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;

/// Something like code: repetitive, and not too much so.
fn content(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let mut word = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        state >> 33
    };
    let mut bytes = Vec::with_capacity(length + 32);
    while bytes.len() < length {
        match word() % 4 {
            0 => bytes.extend_from_slice(&word().to_le_bytes()),
            1 => bytes.extend_from_slice(b"the quick brown fox "),
            _ => {
                let start = word() as usize % bytes.len().max(1);
                let end = (start + word() as usize % 40).min(bytes.len());
                bytes.extend_from_within(start.min(end)..end);
            }
        }
    }
    bytes.truncate(length);
    bytes
}

struct Seen {
    plan: Plan,
    contents: Vec<u8>,
    left: Vec<(String, String)>,
    members: Vec<Member>,
}

fn look(path: &Path, how: How) -> Seen {
    let span = Span::of(fs::File::open(path).expect("made")).expect("a file");
    let mut contents = Vec::new();
    let folder = path.parent().expect("a folder");
    let opened = open(&span, how, &Limits::default(), folder, &mut contents).expect("it fits");
    assert_eq!(opened.length, contents.len() as u64);
    assert_eq!(&opened.hash, blake3::hash(&contents).as_bytes());
    let mut end = 0;
    for member in &opened.members {
        assert_eq!(member.range.start, end, "the members cover the contents");
        end = member.range.end;
    }
    assert_eq!(end, opened.length);
    Seen { plan: opened.plan, contents, left: opened.left, members: opened.members }
}

/// Opens a file in each way, and puts it together again; what was seen to rebuild it.
fn there_and_back(path: &Path) -> Seen {
    let file = fs::read(path).expect("made");
    look(path, How::ToRead { choices: false });
    let read = look(path, How::ToRead { choices: true });
    for slow in [false, true] {
        let seen = look(path, How::ToRebuild { slow });
        let plan = Plan::decode(&seen.plan.encode()).expect("own encoding");
        assert_eq!((&plan, plan.contents()), (&seen.plan, seen.contents.len() as u64));
        let mut again = Vec::new();
        rebuild(&plan, &mut Cursor::new(&seen.contents), &mut again).expect("it was proved");
        assert!(again == file, "{} is another when put together again", path.display());
        if slow {
            if seen.left.is_empty() {
                assert!(seen.contents == read.contents, "what is read is what is rebuilt");
            }
            return seen;
        }
    }
    unreachable!("the loop has returned")
}

/// Runs a tool in a folder; says so and gives none if it is not on this machine.
fn tool(folder: &Path, command: &str) -> bool {
    let name = command.split_whitespace().next().unwrap_or_default();
    if Command::new("sh")
        .args(["-c", &format!("command -v {name}")])
        .output()
        .is_ok_and(|it| !it.status.success())
    {
        eprintln!("skipped: {name} is not on this machine ({command})");
        return false;
    }
    let output = Command::new("sh").args(["-c", command]).current_dir(folder).output().expect("a shell");
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    true
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().to_owned();
    fs::create_dir_all(path.join("d/lib")).expect("room");
    for (name, seed, length) in [("d/a.txt", 1, 3000), ("d/lib/b.so", 2, 400_000), ("d/lib/c", 3, 70)] {
        fs::write(path.join(name), content(seed, length)).expect("room");
    }
    (dir, path)
}

#[test]
fn what_the_tools_make_is_rebuilt() {
    let (_dir, path) = folder();
    let makes = [
        ("tar -cf t.tar d", "t.tar"),
        ("gzip -k9 t.tar", "t.tar.gz"),
        ("gzip -1c t.tar > fast.gz", "fast.gz"),
        ("xz -k6 -T1 t.tar", "t.tar.xz"),
        ("xz -c -T2 -6 --block-size=100KiB t.tar > blocks.xz", "blocks.xz"),
        ("xz -c -T2 -6e --check=sha256 t.tar > extreme.xz", "extreme.xz"),
        ("xz -c -T1 -0 --check=crc32 t.tar > quick.xz", "quick.xz"),
        ("zstd -q -3 t.tar -o t.tar.zst", "t.tar.zst"),
        ("zstd -q -19 --no-check -c < t.tar > nineteen.zst", "nineteen.zst"),
    ];
    for (command, made) in makes {
        if !tool(&path, command) {
            continue;
        }
        let seen = there_and_back(&path.join(made));
        let names: Vec<&str> = seen.members.iter().map(|member| member.path.as_str()).collect();
        assert!(names.contains(&"!d/lib/b.so") || !seen.left.is_empty(), "{command}: {names:?}");
        // The library on this machine may be newer than the one that wrote it, or the other way round.
        assert!(seen.left.is_empty() || made.ends_with(".zst"), "{command}: {:?}", seen.left);
        if command.starts_with("gzip") {
            let choices = seen.plan.choices();
            assert!(choices < 200, "{command}: an encoder that is known, and {choices} bytes of its choices");
        }
    }
}

#[test]
fn packages_within_packages_are_rebuilt() {
    let (_dir, path) = folder();
    let python = "import zipfile as z
for level in (1, 6, 9):
    w = z.ZipFile(f'{level}.whl', 'w', z.ZIP_DEFLATED, compresslevel=level)
    [w.write(f) for f in ('d/a.txt', 'd/lib/b.so', 'd/lib/c')]
    w.close()
w = z.ZipFile('nested.msix', 'w', z.ZIP_STORED)
w.write('6.whl'); w.write('d/a.txt'); w.write('9.whl', compress_type=z.ZIP_DEFLATED)
w.close()";
    fs::write(path.join("make.py"), python).expect("room");
    if tool(&path, "python3 make.py") {
        for made in ["1.whl", "6.whl", "9.whl", "nested.msix"] {
            let seen = there_and_back(&path.join(made));
            // What is compressed twice is not always to be found out: it stays as shipped.
            assert!(seen.left.iter().all(|(path, _)| path == "!9.whl"), "{made}: {:?}", seen.left);
            assert!(seen.plan.work()[0] > 400_000, "{made}: {}", seen.plan);
            let (plan, file) = (seen.plan.encode().len(), fs::metadata(path.join(made)).expect("made").len());
            assert!(plan as u64 * 20 < file, "{made}: {plan} bytes");
        }
        let seen = there_and_back(&path.join("nested.msix"));
        assert!(seen.members.iter().any(|member| member.path == "!6.whl!d/a.txt"));
    }
    let deb = "mkdir -p p/DEBIAN p/usr && cp -r d p/usr && gzip -9kn p/usr/d/a.txt && printf 'Package: p\\nVersion: 1\\nArchitecture: all\\nMaintainer: m <m@m.example>\\nDescription: d\\n' > p/DEBIAN/control && dpkg-deb -Zxz --root-owner-group -b p p.deb";
    if tool(&path, "dpkg-deb --version") && tool(&path, deb) {
        let seen = there_and_back(&path.join("p.deb"));
        assert!(seen.left.is_empty(), "{:?}", seen.left);
        assert!(
            seen.members.iter().any(|it| it.path == "!data.tar.xz!./usr/d/a.txt.gz"),
            "gzip in tar in xz in ar"
        );
    }
}

#[test]
fn what_is_no_archive_is_its_own_contents() {
    let (_dir, path) = folder();
    for (name, bytes) in [
        ("empty", vec![]),
        ("noise", content(9, 100_000)),
        ("lie.zip", b"PK\x03\x04 and so on, for long enough to be looked into, which it is not".to_vec()),
    ] {
        fs::write(path.join(name), &bytes).expect("room");
        let seen = there_and_back(&path.join(name));
        assert!(seen.plan.is_plain() && seen.contents == bytes);
    }
}

#[test]
fn headers_that_lie_are_no_archives() {
    let (_dir, path) = folder();
    let mut tar = vec![0; 2048];
    tar[257..262].copy_from_slice(b"ustar");
    tar[148] = 0x80; // the sum as a binary number
    let mut ar = b"!<arch>\n".to_vec();
    ar.extend(format!("{:<48}{:<10}`\n", "member", "999999999").bytes());
    ar.extend([0; 64]);
    let mut plan = vec![0; 9 << 20];
    plan[..4].copy_from_slice(&[0x80, 0x80, 0xb0, 0x04]); // a shape of 9 MB
    for (name, bytes) in [("lie.tar", tar), ("lie.ar", ar)] {
        fs::write(path.join(name), &bytes).expect("room");
        assert!(there_and_back(&path.join(name)).contents == bytes);
    }
    assert!(Plan::decode(&plan).is_err());
}

#[test]
fn a_bomb_is_refused_and_depth_is_bounded() {
    let (_dir, path) = folder();
    if !tool(
        &path,
        "python3 -c \"import gzip; open('bomb.gz', 'wb').write(gzip.compress(bytes(50_000_000), 9))\"",
    ) {
        return;
    }
    let span = Span::of(fs::File::open(path.join("bomb.gz")).expect("made")).expect("a file");
    let limits = Limits { contents: 1 << 20, ..Limits::default() };
    for how in [How::ToRead { choices: false }, How::ToRead { choices: true }, How::ToRebuild { slow: true }]
    {
        let error = open(&span, how, &limits, &path, &mut std::io::sink()).expect_err("too much");
        assert!(matches!(error, RecipeError::TooMuch(_)), "{error}");
    }
    if tool(&path, "cp d/lib/b.so m && for n in 1 2 3 4 5 6 7 8; do gzip -nf m && mv m.gz m; done") {
        let seen = there_and_back(&path.join("m"));
        assert!(seen.contents.starts_with(&[0x1f, 0x8b]));
    }
}

/// 10,000 altered archives and plans. None makes this panic, none gives another file than it should.
#[test]
fn altered_archives_and_plans_are_refused_or_give_what_they_are() {
    let (_dir, path) = folder();
    fs::write(path.join("small"), content(4, 3000)).expect("room");
    let made = tool(
        &path,
        "tar -cf s.tar small d/lib/c && gzip -k s.tar && xz -k s.tar && zstd -q s.tar && python3 -c \"import zipfile as z; w = z.ZipFile('s.zip', 'w', z.ZIP_DEFLATED); w.write('small'); w.write('d/lib/c')\"",
    );
    if !made {
        return;
    }
    let mut state = 7u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % below.max(1)
    };
    for name in ["s.tar", "s.tar.gz", "s.tar.xz", "s.tar.zst", "s.zip"] {
        let file = fs::read(path.join(name)).expect("made");
        let target = path.join("altered");
        for _ in 0..1000 {
            let mut altered = file.clone();
            for _ in 0..1 + random(3) {
                let at = random(altered.len());
                altered[at] = random(256) as u8;
            }
            altered.truncate(altered.len() - random(2) * random(altered.len()));
            fs::write(&target, &altered).expect("room");
            let seen = look(&target, How::ToRebuild { slow: true });
            let mut again = Vec::new();
            rebuild(&seen.plan, &mut Cursor::new(&seen.contents), &mut again).expect("it was proved");
            assert!(again == altered, "an altered {name} is another when put together again");
        }
        let seen = look(&path.join(name), How::ToRebuild { slow: true });
        let encoded = seen.plan.encode();
        for _ in 0..1000 {
            let mut altered = encoded.clone();
            let at = random(altered.len());
            altered[at] = random(256) as u8;
            altered.truncate(altered.len() - random(2) * random(altered.len()));
            // What it gives is hashed by whoever asked for it.
            if let Ok(plan) = Plan::decode(&altered) {
                rebuild(&plan, &mut Cursor::new(&seen.contents), &mut std::io::sink()).ok();
            }
        }
    }
}
