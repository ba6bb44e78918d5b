//! The fixed part of a record.

/// Bytes of a head: kind, form, two zeros, manifest, first, count, length, check; from the third on four bytes
/// each.
pub const HEAD: usize = 24;

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// What the bundle contains.
    Contents,
    /// The signed catalog.
    Catalog,
    /// A manifest.
    Manifest,
    /// Chunks.
    Run,
    /// Chunks that the reader holds: their payload was left out on the way.
    Held,
    /// The end.
    End,
}

const KINDS: [(Kind, u8); 6] = [
    (Kind::Contents, 1),
    (Kind::Catalog, 2),
    (Kind::Manifest, 3),
    (Kind::Run, 4),
    (Kind::Held, 5),
    (Kind::End, 6),
];

/// A head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Of what.
    pub kind: Kind,
    /// Of a run: how its chunks are stored.
    pub form: u8,
    /// Of a run: which manifest, counted from 0 in their order in the bundle.
    pub manifest: u32,
    /// Of a run: its first chunk.
    pub first: u32,
    /// Of a run: how many chunks.
    pub count: u32,
    /// Bytes of payload.
    pub length: u32,
}

impl Head {
    /// Of a record that is no run.
    pub(super) fn of(kind: Kind, length: u32) -> Self {
        Self { kind, form: 0, manifest: 0, first: 0, count: 0, length }
    }

    /// As it is written.
    pub(super) fn encode(&self) -> [u8; HEAD] {
        let kind = KINDS.iter().find(|(kind, _)| *kind == self.kind).map_or(0, |(_, code)| *code);
        let mut bytes = [0; HEAD];
        bytes[..2].copy_from_slice(&[kind, self.form]);
        for (at, number) in [(4, self.manifest), (8, self.first), (12, self.count), (16, self.length)] {
            bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
        }
        let check = check(&bytes);
        bytes[20..].copy_from_slice(&check);
        bytes
    }

    /// `None` if the bytes were altered, or say what no head says.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEAD] = bytes.try_into().ok()?;
        if bytes[20..] != check(bytes) || bytes[2..4] != [0, 0] {
            return None;
        }
        let (kind, _) = KINDS.into_iter().find(|(_, code)| *code == bytes[0])?;
        let number = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let (manifest, first, count, length) = (number(4)?, number(8)?, number(12)?, number(16)?);
        Some(Self { kind, form: bytes[1], manifest, first, count, length })
    }
}

/// The first bytes of the hash of what comes before.
fn check(bytes: &[u8; HEAD]) -> [u8; 4] {
    let hash = blake3::hash(&bytes[..20]);
    let mut check = [0; 4];
    check.copy_from_slice(&hash.as_bytes()[..4]);
    check
}
