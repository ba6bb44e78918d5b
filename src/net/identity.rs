//! The node's own key, kept in the state directory with mode 0600.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use libp2p::PeerId;
use libp2p::identity::Keypair;

use super::NetError;
use crate::core::id::NodeId;

const FILE: &str = "identity.key";

/// Reads the node's key; makes one the first time.
///
/// # Errors
/// [`NetError::Identity`] if it cannot be read, or is no key.
pub fn load_identity(state_dir: &Path) -> Result<Keypair, NetError> {
    match read(state_dir)? {
        Some(keypair) => Ok(keypair),
        None => {
            let path = state_dir.join(FILE);
            let unusable = |error: &dyn std::fmt::Display| unusable(&path, error);
            let keypair = Keypair::generate_ed25519();
            let bytes = keypair.to_protobuf_encoding().map_err(|error| unusable(&error))?;
            let draft = state_dir.join("identity.key-new");
            let write = || {
                fs::create_dir_all(state_dir)?;
                fs::remove_file(&draft).ok();
                let mut file =
                    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
                file.write_all(&bytes)?;
                file.sync_all()?;
                fs::rename(&draft, &path)
            };
            write().map_err(|error| unusable(&error))?;
            Ok(keypair)
        }
    }
}

/// Whose state directory it is, if an agent has ever run there.
///
/// # Errors
/// As [`load_identity`].
pub fn known_identity(state_dir: &Path) -> Result<Option<NodeId>, NetError> {
    Ok(read(state_dir)?.map(|keypair| node_id(&keypair.public().to_peer_id())))
}

fn read(state_dir: &Path) -> Result<Option<Keypair>, NetError> {
    let path = state_dir.join(FILE);
    match fs::read(&path) {
        Ok(bytes) => {
            Keypair::from_protobuf_encoding(&bytes).map(Some).map_err(|error| unusable(&path, &error))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unusable(&path, &error)),
    }
}

fn unusable(path: &Path, error: &dyn std::fmt::Display) -> NetError {
    let hint = "restore it, or remove it to become a new node";
    NetError::Identity(format!("cannot use the node's key {}: {error}; {hint}", path.display()))
}

/// A node by its `PeerId`. Keys of another kind, which this agent never makes, fall together.
pub fn node_id(peer: &PeerId) -> NodeId {
    NodeId::from_peer_id(&peer.to_bytes()).unwrap_or(NodeId::from_bytes([0; 32]))
}

/// The `PeerId` of a node; `None` if its bytes are no key.
pub fn peer_id(node: &NodeId) -> Option<PeerId> {
    PeerId::from_bytes(&node.to_peer_id()).ok()
}
