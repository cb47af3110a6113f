//! Certificates that change under a server.

use std::fs;

use super::{Set, copy, shake};
use crate::files::Sources;
use crate::live::Live;
use crate::{Client, ClientAuth, H2, Server};

/// The certificate that a new connection gets.
async fn shown(server: &Server, client: &Client) -> Vec<u8> {
    let (accepted, connected) = shake(server, client, "localhost").await;
    accepted.unwrap();
    connected.unwrap().certificate().unwrap().to_vec()
}

#[tokio::test]
async fn a_reload_is_all_or_nothing() {
    let set = Set::new();
    let (server, client) = (set.server(ClientAuth::None), set.client());
    let old = shown(&server, &client).await;
    assert_eq!(shown(&server, &client).await, old);
    set.renew();
    assert_eq!(shown(&server, &client).await, old, "nobody has read the new files yet");
    server.reload().await.unwrap();
    client.reload().await.unwrap();
    let new = shown(&server, &client).await;
    assert_ne!(new, old);

    let other = Set::new();
    copy(&other.file("server.pem"), &set.file("server.pem"));
    let error = server.reload().await.unwrap_err();
    assert_eq!(error.file, set.file("server-key.pem"));
    fs::remove_file(set.file("server-key.pem")).unwrap();
    assert_eq!(server.reload().await.unwrap_err().file, set.file("server-key.pem"));
    assert_eq!(shown(&server, &client).await, new, "the old one stays");
    fs::write(set.file("ca.pem"), "").unwrap();
    assert_eq!(client.reload().await.unwrap_err().file, set.file("ca.pem"));
    assert_eq!(shown(&server, &client).await, new, "the old CA stays");
}

#[tokio::test]
async fn who_may_come_is_reloaded_too() {
    let (set, other) = (Set::new(), Set::new());
    let server = set.server(ClientAuth::Required);
    let known = set.known_client();
    let (cert, key) = (other.file("client.pem"), other.file("client-key.pem"));
    let stranger = Client::open(&set.file("ca.pem"), Some((&cert, &key)), H2).unwrap();
    assert!(shake(&server, &known, "localhost").await.0.is_ok());
    assert!(shake(&server, &stranger, "localhost").await.0.is_err());
    copy(&other.file("ca.pem"), &set.file("ca.pem"));
    server.reload().await.unwrap();
    assert!(shake(&server, &known, "localhost").await.0.is_err(), "no session of before is resumed");
    assert!(shake(&server, &stranger, "localhost").await.0.is_ok());
}

#[test]
fn a_look_waits_for_files_to_come_to_rest() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    let set = Set::new();
    let made = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&made);
    let files = set.files("server", "ca.pem");
    let sources = Sources { identity: Some((files.cert, files.key)), ca: None };
    let live = Live::open(sources, move |_| Ok(count.fetch_add(1, Ordering::Relaxed))).unwrap();
    let look = || {
        live.look();
        (made.load(Ordering::Relaxed), *live.current())
    };
    assert_eq!(look(), (1, 0));
    assert_eq!(look(), (1, 0), "nothing changed");
    let other = Set::new();
    copy(&other.file("server.pem"), &set.file("server.pem"));
    assert_eq!(look(), (1, 0), "they may still be being written");
    copy(&other.file("server-key.pem"), &set.file("server-key.pem"));
    assert_eq!(look(), (1, 0));
    assert_eq!(look(), (2, 1), "they came to rest");
    assert_eq!(look(), (2, 1));
    fs::write(set.file("server-key.pem"), "").unwrap();
    for _ in 0..3 {
        assert_eq!(look(), (2, 1), "the old one stays");
    }
    copy(&other.file("server-key.pem"), &set.file("server-key.pem"));
    assert_eq!(look(), (2, 1));
    assert_eq!(look(), (3, 2));
}
