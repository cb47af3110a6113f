//! Who gets a connection, and what the others are told.

use std::time::Duration as Wait;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{LONG, OPERATOR, Set, shake, sockets};
use crate::{Client, ClientAuth, H2, HTTP, Refused, Server, Stream};

fn protocol(stream: &Stream) -> Option<&[u8]> {
    match stream {
        Stream::Plain(_) => None,
        Stream::Tls(stream) => stream.get_ref().1.alpn_protocol(),
    }
}

#[tokio::test]
async fn bytes_go_both_ways() {
    let set = Set::new();
    for host in ["localhost", "127.0.0.1", "[::1]", "::1", "node.example"] {
        let (accepted, connected) = shake(&set.server(ClientAuth::None), &set.client(), host).await;
        let (mut accepted, mut connected) = (accepted.unwrap(), connected.unwrap());
        assert_eq!(protocol(&connected), Some(&b"h2"[..]));
        assert!(accepted.certificate().is_none() && connected.certificate().is_some());
        connected.write_all(b"ping").await.unwrap();
        connected.shutdown().await.unwrap();
        let mut heard = String::new();
        accepted.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "ping", "{host}");
        accepted.write_all(b"pong").await.unwrap();
        accepted.shutdown().await.unwrap();
        heard.clear();
        connected.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "pong", "{host}");
    }
}

#[tokio::test]
async fn nodes_know_each_other() {
    let set = Set::new();
    let one = Server::open(&set.files("peer-1", "peer-ca.pem"), ClientAuth::Required, H2).unwrap();
    let (cert, key) = (set.file("peer-2.pem"), set.file("peer-2-key.pem"));
    let two = Client::open(&set.file("peer-ca.pem"), Some((&cert, &key)), H2).unwrap();
    let (accepted, connected) = shake(&one, &two, "127.0.0.1").await;
    assert!(accepted.unwrap().certificate().is_some() && connected.unwrap().certificate().is_some());
    // A client of the cluster is no node of it.
    let (cert, key) = (set.file("client.pem"), set.file("client-key.pem"));
    let client = Client::open(&set.file("peer-ca.pem"), Some((&cert, &key)), H2).unwrap();
    assert!(matches!(shake(&one, &client, "127.0.0.1").await.0, Err(Refused::Handshake(_))));
}

#[tokio::test]
async fn a_client_is_told_why_it_trusts_the_server_not() {
    let (set, other) = (Set::new(), Set::new());
    let server = set.server(ClientAuth::None);
    for (client, host, want) in [
        (other.client(), "localhost", "the server's certificate is of no CA in the CA file"),
        (
            set.client(),
            "elsewhere",
            "the server's certificate is not for elsewhere, but for localhost, 127.0.0.1, 0::1, node.example",
        ),
        (set.client(), "no name", "'no name' given, a host name or an address expected"),
    ] {
        let (accepted, connected) = shake(&server, &client, host).await;
        assert!(accepted.is_err());
        assert_eq!(connected.unwrap_err().to_string(), want);
    }
}

#[tokio::test]
async fn a_client_is_told_why_the_server_refuses_it() {
    let (set, other) = (Set::new(), Set::new());
    let server = set.server(ClientAuth::Required);
    let (cert, key) = (other.file("client.pem"), other.file("client-key.pem"));
    let stranger = Client::open(&set.file("ca.pem"), Some((&cert, &key)), H2).unwrap();
    for (client, want) in [
        (set.client(), "the server wants a client certificate"),
        (stranger, "the server does not know the CA of the client certificate"),
    ] {
        let (calling, called) = sockets().await;
        let calling = async {
            // The client's side is done before the server looks at the certificate.
            let mut stream = client.connect(calling, "localhost").await.unwrap();
            let _ = stream.write_all(&vec![0; 32 << 10]).await;
            stream.read_u8().await.unwrap_err()
        };
        let (accepted, error) = tokio::join!(server.accept(called, LONG, b""), calling);
        assert!(matches!(accepted, Err(Refused::Handshake(_))), "{accepted:?}");
        assert_eq!(error.to_string(), want);
    }
    let known = shake(&server, &set.known_client(), "localhost").await.0.unwrap();
    assert!(known.certificate().is_some() && known.uris().is_empty());
}

#[tokio::test]
async fn a_client_says_who_it_is() {
    let set = Set::new();
    let (cert, key) = (set.file("operator.pem"), set.file("operator-key.pem"));
    let operator = Client::open(&set.file("ca.pem"), Some((&cert, &key)), H2).unwrap();
    let (accepted, connected) = shake(&set.server(ClientAuth::Required), &operator, "localhost").await;
    assert_eq!((accepted.unwrap().uris(), connected.unwrap().uris()), (vec![OPERATOR.to_owned()], vec![]));
}

#[tokio::test]
async fn plaintext_gets_its_answer() {
    let set = Set::new();
    let (mut calling, called) = sockets().await;
    let talk = async {
        calling.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let mut heard = String::new();
        calling.read_to_string(&mut heard).await.unwrap();
        drop(calling);
        heard
    };
    let server = set.server(ClientAuth::None);
    let (refused, heard) = tokio::join!(server.accept(called, LONG, b"not here"), talk);
    assert!(matches!(refused, Err(Refused::Plaintext)));
    assert_eq!(heard, "not here");

    let (calling, mut called) = sockets().await;
    called.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    let refused = set.client().connect(calling, "localhost").await.unwrap_err();
    assert_eq!(refused.to_string(), "the server does not speak TLS there");
    let (calling, called) = sockets().await;
    drop(called);
    let refused = set.client().connect(calling, "localhost").await.unwrap_err().to_string();
    assert_eq!(refused, "the server closed the connection during the TLS handshake");
}

#[tokio::test]
async fn a_client_that_says_nothing_is_given_up() {
    let set = Set::new();
    for first in [&b""[..], &[0x16], &[0x16, 3, 1, 0, 200]] {
        let (mut calling, called) = sockets().await;
        calling.write_all(first).await.unwrap();
        let within = Wait::from_millis(20);
        let refused = set.server(ClientAuth::None).accept(called, within, b"").await;
        assert!(matches!(refused, Err(Refused::Late(_))), "{first:?}: {refused:?}");
    }
}

#[tokio::test]
async fn only_what_both_speak() {
    let set = Set::new();
    let client = Client::open(&set.file("ca.pem"), None, &[b"spdy/3"]).unwrap();
    let (accepted, connected) = shake(&set.server(ClientAuth::None), &client, "localhost").await;
    assert!(accepted.is_err());
    assert!(connected.unwrap_err().to_string().contains("speaks none of the protocols"));
    let client = Client::open(&set.file("ca.pem"), None, &[b"http/1.1"]).unwrap();
    let server = Server::open(&set.files("server", "ca.pem"), ClientAuth::None, HTTP).unwrap();
    let connected = shake(&server, &client, "localhost").await.1.unwrap();
    assert_eq!(protocol(&connected), Some(&b"http/1.1"[..]));
}
