//! What is said of files that cannot be used, and what a development set is.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use time::Duration;

use super::{OPERATOR, Set, copy};
use crate::{Client, ClientAuth, Development, H2, HTTP, Server, development};

#[test]
fn errors_name_the_file_and_what_is_wrong() {
    const YEAR: Duration = Duration::days(365);
    type Break = fn(&Set);
    let cases: [(&str, &str, Break); 12] = [
        ("server.pem", "No such file", |set| fs::remove_file(set.file("server.pem")).unwrap()),
        ("server.pem", "no certificate in it", |set| fs::write(set.file("server.pem"), "hello").unwrap()),
        ("server.pem", "no certificate in it", |set| copy(&set.file("server-key.pem"), &set.file("server.pem"))),
        ("server.pem", "longer than 1048576 bytes", |set| {
            fs::write(set.file("server.pem"), vec![b'x'; 2 << 20]).unwrap();
        }),
        ("server.pem", "cut off", |set| {
            let text = fs::read_to_string(set.file("server.pem")).unwrap();
            fs::write(set.file("server.pem"), &text[..text.len() / 2]).unwrap();
        }),
        ("server.pem", "no certificate: ", |set| {
            let text = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
            fs::write(set.file("server.pem"), text).unwrap();
        }),
        ("server.pem", "the certificate expired at 20", |set| set.put_server(-YEAR, -Duration::HOUR)),
        ("server.pem", "the certificate is not valid before 20", |set| set.put_server(Duration::HOUR, YEAR)),
        ("server-key.pem", "no private key in it", |set| copy(&set.file("ca.pem"), &set.file("server-key.pem"))),
        ("server-key.pem", "encrypted", |set| {
            let text = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
            fs::write(set.file("server-key.pem"), text).unwrap();
        }),
        ("server-key.pem", "not the key of the certificate in ", |set| {
            copy(&set.file("client-key.pem"), &set.file("server-key.pem"));
        }),
        ("ca.pem", "no certificate in it", |set| fs::write(set.file("ca.pem"), "").unwrap()),
    ];
    for (file, want, broken) in cases {
        let set = Set::new();
        broken(&set);
        let error = Server::open(&set.files("server", "ca.pem"), ClientAuth::Required, HTTP).unwrap_err();
        assert_eq!(error.file, set.file(file), "{error}");
        assert!(error.what.contains(want), "{error}");
    }
    let set = Set::new();
    let mut files = set.files("server", "ca.pem");
    files.ca = None;
    let error = Server::open(&files, ClientAuth::Required, HTTP).unwrap_err();
    assert!(error.what.contains("no CA file"), "{error}");
    let error = Client::open(&set.file("none.pem"), None, H2).unwrap_err();
    assert_eq!(error.file, set.file("none.pem"));
}

#[test]
fn a_set_is_private_and_not_written_over() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("new/certs");
    let mut wanted = Development {
        nodes: 3,
        hosts: vec!["10.0.0.1".into(), "*.example".into()],
        clients: vec![("operator".into(), OPERATOR.into())],
        overwrite: false,
    };
    let files = development(&folder, &wanted).unwrap();
    let names: Vec<_> = files.iter().map(|file| file.file_name().unwrap().to_str().unwrap()).collect();
    let want = [
        "ca.pem",
        "ca-key.pem",
        "peer-ca.pem",
        "peer-ca-key.pem",
        "server.pem",
        "server-key.pem",
        "client.pem",
        "client-key.pem",
        "operator.pem",
        "operator-key.pem",
        "peer-1.pem",
        "peer-1-key.pem",
        "peer-2.pem",
        "peer-2-key.pem",
        "peer-3.pem",
        "peer-3-key.pem",
    ];
    assert_eq!(names, want);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), want.len(), "nothing else is left");
    for file in &files {
        let mode = fs::metadata(file).unwrap().permissions().mode() & 0o777;
        let secret = file.to_str().unwrap().ends_with("-key.pem");
        assert!(if secret { mode == 0o600 } else { mode & 0o400 != 0 }, "{}: {mode:o}", file.display());
    }
    let before = fs::read(folder.join("server.pem")).unwrap();
    fs::remove_file(folder.join("ca.pem")).unwrap();
    let error = development(&folder, &wanted).unwrap_err();
    assert_eq!((error.file, error.what.as_str()), (folder.join("ca-key.pem"), "exists already"));
    assert!(!folder.join("ca.pem").exists(), "all or nothing");
    assert_eq!(fs::read(folder.join("server.pem")).unwrap(), before);
    wanted.overwrite = true;
    fs::set_permissions(folder.join("server-key.pem"), fs::Permissions::from_mode(0o644)).unwrap();
    development(&folder, &wanted).unwrap();
    assert_ne!(fs::read(folder.join("server.pem")).unwrap(), before);
    assert_eq!(fs::metadata(folder.join("server-key.pem")).unwrap().permissions().mode() & 0o777, 0o600);
    wanted.hosts = vec!["no name".into()];
    assert!(development(&folder, &wanted).unwrap_err().what.starts_with("no certificate for 'no name'"));
}
