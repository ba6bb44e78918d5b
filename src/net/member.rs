//! Membership: who holds the site key.
//!
//! Right after TLS, before a stream is opened or a byte answered, both ends prove that they know
//! the site key: each with a keyed BLAKE3 hash over its role, both peer ids, two fresh nonces and
//! a value of this TLS session, so a proof cannot be replayed, reflected or relayed. The dialer
//! proves first, so a stranger who connects learns nothing. Once per connection: libp2p's own
//! pre-shared-key layer encrypts every byte a second time and doubles its cost.

use std::fs;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, BufWriter};
use futures_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use libp2p::PeerId;
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo};
use rustls::pki_types::ServerName;

use super::tls::{Tls, session};
use crate::core::id::SiteName;

const FILE_PREFIX: &str = "branchline-site-key-1 ";
/// Under TLS: rustls itself asks the socket for 4 KiB at a time.
const READ_BUFFER: usize = 128 << 10;
/// Over TLS: small messages gather here; a large frame passes by without being copied once more.
const WRITE_BUFFER: usize = 16 << 10;

/// The secret that the members of a site share.
#[derive(Clone)]
pub struct SiteKey([u8; 32]);

impl std::fmt::Debug for SiteKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SiteKey(secret)")
    }
}

/// Why a site key could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SiteKeyError {
    /// The file cannot be read or written.
    #[error("cannot use the site key file {0}: {1}")]
    Io(String, io::Error),
    /// The file is no site key.
    #[error(
        "{0} is no site key: make one with 'branchline site keygen FILE' and copy it to every machine of the site"
    )]
    Malformed(String),
    /// Others can read it.
    #[error("the site key file {0} can be read by other users: run 'chmod 600 {0}'")]
    Exposed(String),
    /// It is never overwritten.
    #[error(
        "{0} is there already, and a site key is never overwritten: whoever has the old one would be shut out"
    )]
    Taken(String),
}

impl SiteKey {
    /// A key from its bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// [`SiteKeyError`].
    pub fn read(path: &Path) -> Result<Self, SiteKeyError> {
        let name = path.display().to_string();
        let failed = |error| SiteKeyError::Io(name.clone(), error);
        let mode = fs::metadata(path).map_err(failed)?.permissions().mode();
        if mode & 0o007 != 0 {
            return Err(SiteKeyError::Exposed(name));
        }
        let text = fs::read_to_string(path).map_err(failed)?;
        let key =
            text.trim().strip_prefix(FILE_PREFIX).and_then(|hex| blake3::Hash::from_hex(hex.trim()).ok());
        key.map(|key| Self(*key.as_bytes())).ok_or(SiteKeyError::Malformed(name))
    }

    /// Writes a new random key to a file that was not there, mode 0600.
    ///
    /// # Errors
    /// [`SiteKeyError`].
    pub fn generate(path: &Path) -> Result<(), SiteKeyError> {
        let name = path.display().to_string();
        let key = blake3::Hash::from_bytes(rand::random());
        let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let mut file = file.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => SiteKeyError::Taken(name.clone()),
            _ => SiteKeyError::Io(name.clone(), error),
        })?;
        let line = format!("{FILE_PREFIX}{}\n", key.to_hex());
        file.write_all(line.as_bytes()).map_err(|error| SiteKeyError::Io(name, error))
    }

    /// A key for one purpose at one site.
    pub fn derive(&self, purpose: &str, site: &SiteName) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key(&format!("branchline 2026-11 {purpose}"));
        hasher.update(&self.0).update(site.as_str().as_bytes());
        *hasher.finalize().as_bytes()
    }
}

/// Why a connection was not made.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// TLS failed, or the line broke.
    #[error("the handshake broke off: {0}")]
    Io(#[from] io::Error),
    /// The other end is no libp2p node.
    #[error("the handshake was refused: {0}")]
    Tls(#[from] rustls::Error),
    /// The other end does not hold this site's key.
    #[error("the other node is not a member of this site: its site name or site key differs")]
    NotMember,
}

/// Encrypts a connection and proves membership on it.
#[derive(Debug, Clone)]
pub(super) struct MemberUpgrade {
    tls: Tls,
    proof: Arc<Proof>,
}

#[derive(Debug)]
struct Proof {
    key: [u8; 32],
    me: PeerId,
}

/// One end of a handshake.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Dialer,
    Listener,
}

/// A connection whose other end is a member.
pub(super) type Secure<C> = BufWriter<TlsStream<BufReader<C>>>;

impl MemberUpgrade {
    pub(super) fn new(tls: Tls, key: &SiteKey, site: &SiteName, me: PeerId) -> Self {
        Self { tls, proof: Arc::new(Proof { key: key.derive("membership", site), me }) }
    }
}

impl Proof {
    fn tag(
        &self,
        by: Role,
        peer: PeerId,
        nonces: &[[u8; 32]; 2],
        binding: &[u8; 32],
        mine: bool,
    ) -> blake3::Hash {
        let (from, to) = if mine { (self.me, peer) } else { (peer, self.me) };
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(if by == Role::Dialer { b"dialer" } else { b"listen" });
        for part in [&from.to_bytes()[..], &to.to_bytes(), &nonces[0], &nonces[1], binding] {
            hasher.update(&(part.len() as u32).to_le_bytes()).update(part);
        }
        hasher.finalize()
    }

    /// Exchanges nonces, then proofs, the dialer's first.
    async fn exchange<S>(
        &self,
        io: &mut S,
        role: Role,
        peer: PeerId,
        binding: [u8; 32],
    ) -> Result<(), MemberError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mine: [u8; 32] = rand::random();
        let mut theirs = [0; 32];
        let mut tag = [0; 32];
        if role == Role::Dialer {
            send(io, &mine).await?;
            io.read_exact(&mut theirs).await?;
            let nonces = [mine, theirs];
            send(io, self.tag(Role::Dialer, peer, &nonces, &binding, true).as_bytes()).await?;
            io.read_exact(&mut tag).await.map_err(|_| MemberError::NotMember)?;
            let right = self.tag(Role::Listener, peer, &nonces, &binding, false);
            // blake3::Hash compares in constant time.
            if blake3::Hash::from_bytes(tag) == right { Ok(()) } else { Err(MemberError::NotMember) }
        } else {
            io.read_exact(&mut theirs).await?;
            send(io, &mine).await?;
            io.read_exact(&mut tag).await?;
            let nonces = [theirs, mine];
            let right = self.tag(Role::Dialer, peer, &nonces, &binding, false);
            if blake3::Hash::from_bytes(tag) != right {
                return Err(MemberError::NotMember);
            }
            send(io, self.tag(Role::Listener, peer, &nonces, &binding, true).as_bytes()).await?;
            Ok(())
        }
    }
}

async fn send<S: AsyncWrite + Unpin>(io: &mut S, bytes: &[u8]) -> io::Result<()> {
    io.write_all(bytes).await?;
    io.flush().await
}

impl UpgradeInfo for MemberUpgrade {
    type Info = &'static str;
    type InfoIter = std::iter::Once<Self::Info>;

    fn protocol_info(&self) -> Self::InfoIter {
        std::iter::once("/branchline/member/1")
    }
}

impl<C> InboundConnectionUpgrade<C> for MemberUpgrade
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = (PeerId, Secure<C>);
    type Error = MemberError;
    type Future = BoxFuture<'static, Result<Self::Output, Self::Error>>;

    fn upgrade_inbound(self, socket: C, _: Self::Info) -> Self::Future {
        Box::pin(async move {
            let socket = BufReader::with_capacity(READ_BUFFER, socket);
            let mut tls = TlsAcceptor::from(self.tls.server).accept(socket).await?;
            let (peer, binding) = session(tls.get_ref().1)?;
            self.proof.exchange(&mut tls, Role::Listener, peer, binding).await?;
            Ok((peer, BufWriter::with_capacity(WRITE_BUFFER, tls.into())))
        })
    }
}

impl<C> OutboundConnectionUpgrade<C> for MemberUpgrade
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = (PeerId, Secure<C>);
    type Error = MemberError;
    type Future = BoxFuture<'static, Result<Self::Output, Self::Error>>;

    fn upgrade_outbound(self, socket: C, _: Self::Info) -> Self::Future {
        Box::pin(async move {
            let socket = BufReader::with_capacity(READ_BUFFER, socket);
            // TLS wants a name; it is neither sent nor looked at.
            let name = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::UNSPECIFIED).into());
            let mut tls = TlsConnector::from(self.tls.client).connect(name, socket).await?;
            let (peer, binding) = session(tls.get_ref().1)?;
            self.proof.exchange(&mut tls, Role::Dialer, peer, binding).await?;
            Ok((peer, BufWriter::with_capacity(WRITE_BUFFER, tls.into())))
        })
    }
}

#[cfg(test)]
mod tests {
    use futures::future::join;
    use libp2p::identity::Keypair;
    use tokio_util::compat::TokioAsyncReadCompatExt;

    use super::*;

    fn upgrade(keypair: &Keypair, key: u8, site: &str) -> MemberUpgrade {
        let site = site.parse().expect("a name");
        let tls = Tls::new(keypair).expect("a key");
        MemberUpgrade::new(tls, &SiteKey([key; 32]), &site, keypair.public().to_peer_id())
    }

    async fn meet(
        a: (u8, &str),
        b: (u8, &str),
    ) -> (Result<PeerId, MemberError>, Result<PeerId, MemberError>) {
        let (left, right) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let (x, y) = tokio::io::duplex(1 << 16);
        let dial = upgrade(&left, a.0, a.1).upgrade_outbound(x.compat(), "");
        let listen = upgrade(&right, b.0, b.1).upgrade_inbound(y.compat(), "");
        let (dialed, heard) = join(dial, listen).await;
        let peer = |result: Result<(PeerId, _), _>| result.map(|(peer, _)| peer);
        if let Ok((peer, _)) = &dialed {
            assert_eq!(*peer, right.public().to_peer_id());
        }
        (peer(dialed), peer(heard))
    }

    #[tokio::test]
    async fn members_meet_and_strangers_do_not() {
        let (dialed, heard) = meet((1, "lisbon"), (1, "lisbon")).await;
        assert!(dialed.is_ok() && heard.is_ok(), "{dialed:?} {heard:?}");
        for other in [(2, "lisbon"), (1, "porto")] {
            let (dialed, heard) = meet((1, "lisbon"), other).await;
            assert!(matches!(heard, Err(MemberError::NotMember)), "{heard:?}");
            assert!(matches!(dialed, Err(MemberError::NotMember)), "{dialed:?}");
        }
    }

    #[test]
    fn key_files_are_private_and_never_overwritten() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("site.key");
        SiteKey::generate(&path).expect("a new file");
        assert!(matches!(SiteKey::generate(&path), Err(SiteKeyError::Taken(_))));
        let key = SiteKey::read(&path).expect("its own file");
        assert_eq!(format!("{key:?}"), "SiteKey(secret)");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("own file");
        assert!(matches!(SiteKey::read(&path), Err(SiteKeyError::Exposed(_))));
        fs::write(&path, "nonsense").expect("own file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("own file");
        assert!(matches!(SiteKey::read(&path), Err(SiteKeyError::Malformed(_))));
    }
}
