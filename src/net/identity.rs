//! The node's own key, kept in the state directory with mode 0600.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use libp2p::PeerId;
use libp2p::identity::Keypair;

use super::NetError;
use crate::core::id::NodeId;

/// Reads the node's key; makes one the first time.
///
/// # Errors
/// [`NetError::Identity`] if it cannot be read, or is no key.
pub fn load_identity(state_dir: &Path) -> Result<Keypair, NetError> {
    let path = state_dir.join("identity.key");
    let unusable = |error: &dyn std::fmt::Display| {
        let hint = "restore it, or remove it to become a new node";
        NetError::Identity(format!("cannot use the node's key {}: {error}; {hint}", path.display()))
    };
    match fs::read(&path) {
        Ok(bytes) => Keypair::from_protobuf_encoding(&bytes).map_err(|error| unusable(&error)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
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
        Err(error) => Err(unusable(&error)),
    }
}

/// A node by its `PeerId`. Keys of another kind, which this agent never makes, fall together.
pub fn node_id(peer: &PeerId) -> NodeId {
    NodeId::from_peer_id(&peer.to_bytes()).unwrap_or(NodeId::from_bytes([0; 32]))
}

/// The `PeerId` of a node; `None` if its bytes are no key.
pub fn peer_id(node: &NodeId) -> Option<PeerId> {
    PeerId::from_bytes(&node.to_peer_id()).ok()
}
