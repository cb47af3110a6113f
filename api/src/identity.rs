//! Who calls, by the URI in the client's certificate: `spiffe://TRUST-DOMAIN/pallium/CLASS/NAME`; and what that lets it
//! do. Whoever signs for `tls.client.ca` says who is who: the trust domain is not looked at.
//!
//! Without TLS, or without `tls.client.ca`, nobody shows a certificate, and nobody is held to one.

use std::fmt;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request};
use axum::http::Method;
use scheduler::ha::HostId;
use uuid::Uuid;

use crate::error::ApiError;
use crate::masakari;
use crate::service::Service;

/// Whether clients must say who they are. One that does is held to it in either case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Identities {
    /// A certificate without an identity speaks for any host and gives any order.
    #[default]
    Optional,
    /// It does neither.
    Required,
}

/// Who a certificate says that a client is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The agent of a host: it speaks for this host, and does nothing else.
    Hypervisor(HostId),
    /// Somebody who gives failover orders.
    Operator(String),
}

/// Bytes of an operator's name.
const NAME: usize = 64;

impl Identity {
    /// Who the URIs of a certificate name; an error says why nobody can be made of them.
    fn of(uris: &[String]) -> Result<Option<Self>, String> {
        let ours = uris.iter().filter_map(|uri| {
            let (_, path) = uri.strip_prefix("spiffe://")?.split_once('/')?;
            Some((uri, path.strip_prefix("pallium/")?))
        });
        match ours.collect::<Vec<_>>()[..] {
            [] => Ok(None),
            [(uri, path)] => Self::parse(path).map(Some).ok_or_else(|| {
                format!(
                    "its certificate names '{}', spiffe://TRUST-DOMAIN/pallium/hypervisor/HOST-ID or \
                     …/pallium/operator/NAME expected",
                    uri.escape_debug()
                )
            }),
            _ => Err("its certificate has several URIs below /pallium, one expected".to_owned()),
        }
    }

    fn parse(path: &str) -> Option<Self> {
        let (class, name) = path.split_once('/')?;
        match class {
            "hypervisor" => Some(Self::Hypervisor(HostId(Uuid::try_parse(name).ok()?))),
            "operator" => {
                let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
                let fine = !name.is_empty() && name.len() <= NAME && name.bytes().all(plain);
                fine.then(|| Self::Operator(name.to_owned()))
            }
            _ => None,
        }
    }

    /// The URI of it in a certificate.
    pub fn uri(&self, trust_domain: &str) -> String {
        match self {
            Self::Hypervisor(host) => format!("spiffe://{trust_domain}/pallium/hypervisor/{host}"),
            Self::Operator(name) => format!("spiffe://{trust_domain}/pallium/operator/{name}"),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hypervisor(host) => write!(f, "hypervisor {host}"),
            Self::Operator(name) => write!(f, "operator {name}"),
        }
    }
}

/// Who is at the other end of a connection; an error says why its certificate's word for it is none.
#[derive(Clone, Debug)]
pub(crate) struct Caller(Arc<Result<Option<Identity>, String>>);

/// Why somebody may not do something.
#[derive(Debug)]
pub(crate) struct Denied {
    pub reason: &'static str,
    pub message: String,
}

/// Every `reason` that [`Denied`] has.
pub(crate) const REASONS: [&str; 4] = ["no_identity", "unreadable", "wrong_class", "other_host"];

/// What a request is, to who may send it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Whether the server lives.
    Health,
    /// What the agent of a host says.
    Agent,
    /// Something that changes what failover does.
    Order,
    /// All else.
    Other,
}

const FAILOVER: &str = "/pallium.ha.v1.Failover/";
const AGENT: &str = "/pallium.ha.v1.HostAgent/";
/// The same as single requests.
const REQUESTS: [&str; 2] = ["/v1/ha/hosts/{host}/reports", "/v1/ha/hosts/{host}/directives"];
/// Methods of [`FAILOVER`] that change nothing. A new one is an order until it stands here.
const LOOKS: [&str; 8] = ["Status", "Hosts", "Losses", "Cases", "Case", "Drains", "Policies", "CheckPolicy"];

impl Kind {
    /// By the route that the request takes, and for gRPC by its path, which is the method.
    fn of(route: &str, path: &str, method: &Method) -> Self {
        if route.starts_with(AGENT) || REQUESTS.contains(&route) {
            return Self::Agent;
        }
        if route.starts_with(FAILOVER) {
            let look = path.strip_prefix(FAILOVER).is_some_and(|method| LOOKS.contains(&method));
            return if look { Self::Other } else { Self::Order };
        }
        if matches!(route, "/healthz" | "/readyz") || route.starts_with("/grpc.health.v1.Health/") {
            return Self::Health;
        }
        let looks = matches!(*method, Method::GET | Method::HEAD) || route == "/v1/ha/check-policy";
        // What a monitor says is hearsay; segments and hosts are the operator's.
        let hearsay = *method == Method::POST && path.trim_end_matches('/').ends_with("/notifications");
        let order = route.starts_with("/v1/ha/") || masakari::is(route) && !hearsay;
        if order && !looks { Self::Order } else { Self::Other }
    }
}

impl Caller {
    /// By the URIs of the certificate that it showed.
    pub(crate) fn of(uris: &[String]) -> Self {
        Self(Arc::new(Identity::of(uris)))
    }

    fn may(&self, kind: Kind, identities: Identities) -> Result<(), Denied> {
        let denied = |reason, message: String| Err(Denied { reason, message });
        match (&*self.0, kind) {
            (_, Kind::Health)
            | (Ok(Some(Identity::Hypervisor(_))), Kind::Agent)
            | (Ok(Some(Identity::Operator(_))), Kind::Order)
            | (Ok(Some(Identity::Operator(_)) | None) | Err(_), Kind::Other) => Ok(()),
            (Ok(Some(known)), Kind::Agent) => denied("wrong_class", format!("{known} speaks for no host")),
            (Ok(Some(known)), _) => {
                denied("wrong_class", format!("{known} is the agent of a host, and does nothing but speak for it"))
            }
            (Err(why), _) => denied("unreadable", why.clone()),
            (Ok(None), _) if identities == Identities::Optional => Ok(()),
            (Ok(None), Kind::Agent) => denied(
                "no_identity",
                "the agent's certificate names no host: spiffe://TRUST-DOMAIN/pallium/hypervisor/HOST-ID expected among \
                 its URIs"
                    .to_owned(),
            ),
            (Ok(None), _) => denied(
                "no_identity",
                "orders of failover are an operator's: a certificate with the URI \
                 spiffe://TRUST-DOMAIN/pallium/operator/NAME expected"
                    .to_owned(),
            ),
        }
    }

    fn speaks_for(&self, host: HostId) -> Result<(), Denied> {
        match &*self.0 {
            Ok(Some(Identity::Hypervisor(own))) if *own != host => Err(Denied {
                reason: "other_host",
                message: format!("host: {host} given, the certificate is of {own}, and speaks for no other"),
            }),
            _ => Ok(()),
        }
    }

    fn operator(&self) -> Option<&str> {
        match &*self.0 {
            Ok(Some(Identity::Operator(name))) => Some(name),
            _ => None,
        }
    }
}

impl Service {
    /// Whether who sends a request may.
    pub(crate) fn admit(&self, request: &Request) -> Result<(), ApiError> {
        let Some(caller) = request.extensions().get::<Caller>() else { return Ok(()) };
        let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
        let kind = Kind::of(route, request.uri().path(), request.method());
        caller.may(kind, self.config.identities).map_err(|denied| self.denied(denied))?;
        if let (Kind::Order, Some(operator)) = (kind, caller.operator()) {
            tracing::info!(operator, path = request.uri().path(), "an operator's order");
        }
        Ok(())
    }

    /// Whether who calls may speak for a host.
    pub(crate) fn speaks_for(&self, caller: Option<&Caller>, host: HostId) -> Result<(), ApiError> {
        caller.map_or(Ok(()), |caller| caller.speaks_for(host)).map_err(|denied| self.denied(denied))
    }

    /// Counts and logs that somebody claimed too much.
    pub(crate) fn denied(&self, Denied { reason, message }: Denied) -> ApiError {
        tracing::warn!(reason, why = message, "refused, by the client's certificate");
        self.metrics.denied(reason);
        ApiError::forbidden(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "0a3c7d1e-0000-4000-8000-000000000001";

    fn caller(uris: &[&str]) -> Caller {
        Caller::of(&uris.iter().map(|uri| (*uri).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn a_certificate_names_a_host_or_an_operator_or_nobody() {
        let host = HostId(Uuid::try_parse(HOST).expect("a uuid"));
        for identity in [Identity::Hypervisor(host), Identity::Operator("ada.l".to_owned())] {
            assert_eq!(Identity::of(&[identity.uri("cloud.example")]), Ok(Some(identity)));
        }
        for nobody in [&[][..], &["spiffe://a/ns/x/sa/y"], &["https://a/pallium/operator/x"], &["spiffe://pallium"]] {
            assert_eq!(*caller(nobody).0, Ok(None), "{nobody:?}");
        }
        let long = format!("spiffe://a/pallium/operator/{}", "x".repeat(NAME + 1));
        for wrong in [
            &["spiffe://a/pallium/hypervisor/compute-17"][..],
            &["spiffe://a/pallium/hypervisor"],
            &["spiffe://a/pallium/operator/"],
            &["spiffe://a/pallium/operator/a/b"],
            &["spiffe://a/pallium/operator/a\nb"],
            &["spiffe://a/pallium/observer/b"],
            &[&long],
            &["spiffe://a/pallium/operator/x", "spiffe://b/pallium/operator/x"],
        ] {
            assert!(caller(wrong).0.is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn each_may_do_what_its_certificate_is_for() {
        let agent = &format!("spiffe://a/pallium/hypervisor/{HOST}");
        let all = [
            caller(&[agent]),
            caller(&["spiffe://a/pallium/operator/x"]),
            caller(&[]),
            caller(&["spiffe://a/pallium/x"]),
        ];
        let reason = |result: Result<(), Denied>| result.err().map_or("", |denied| denied.reason);
        // In turn: an agent, an operator, nobody where that is fine, nobody where it is not, and nonsense.
        for (route, path, method, want) in [
            ("/healthz", "/healthz", Method::GET, ["", "", "", "", ""]),
            (
                "/pallium.ha.v1.HostAgent/{method}",
                "/pallium.ha.v1.HostAgent/Session",
                Method::POST,
                ["", "wrong_class", "", "no_identity", "unreadable"],
            ),
            (
                "/pallium.ha.v1.Failover/{method}",
                "/pallium.ha.v1.Failover/ConfirmDead",
                Method::POST,
                ["wrong_class", "", "", "no_identity", "unreadable"],
            ),
            (
                "/v1/ha/confirm-dead",
                "/v1/ha/confirm-dead",
                Method::POST,
                ["wrong_class", "", "", "no_identity", "unreadable"],
            ),
            ("/ha/v1/{*path}", "/ha/v1/segments", Method::POST, ["wrong_class", "", "", "no_identity", "unreadable"]),
            ("/ha/v1/{*path}", "/ha/v1/notifications", Method::POST, ["wrong_class", "", "", "", ""]),
            (
                "/pallium.ha.v1.Failover/{method}",
                "/pallium.ha.v1.Failover/Case",
                Method::POST,
                ["wrong_class", "", "", "", ""],
            ),
            ("/v1/ha/cases/{host}", "/v1/ha/cases/a", Method::GET, ["wrong_class", "", "", "", ""]),
            ("/scheduler/nova/external", "/scheduler/nova/external", Method::POST, ["wrong_class", "", "", "", ""]),
        ] {
            let kind = Kind::of(route, path, &method);
            let [agent, operator, nobody, nonsense] = &all;
            let got = [
                agent.may(kind, Identities::Optional),
                operator.may(kind, Identities::Required),
                nobody.may(kind, Identities::Optional),
                nobody.may(kind, Identities::Required),
                nonsense.may(kind, Identities::Optional),
            ];
            assert_eq!(got.map(reason), want, "{method} {path}");
        }
    }
}
