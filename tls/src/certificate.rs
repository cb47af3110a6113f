//! What a certificate says: whose it is, and from when to when it is valid. webpki does not tell the times of a
//! certificate, but says so when it refuses one: what it checks first is the time.

use std::time::Duration;

use rustls::pki_types::{CertificateDer, UnixTime};
use time::OffsetDateTime;
use webpki::{EndEntityCert, KeyUsage};

/// The span in which a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    pub not_before: UnixTime,
    pub not_after: UnixTime,
}

impl Validity {
    /// The span of a certificate; an error is what makes it no certificate.
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Result<Self, String> {
        let parsed = EndEntityCert::try_from(certificate).map_err(|error| format!("{error:?}"))?;
        let at = |time| {
            let refused = parsed.verify_for_usage(&[], &[], &[], time, KeyUsage::server_auth(), None, None);
            refused.err().unwrap_or(webpki::Error::UnknownIssuer)
        };
        let unix = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let not_before = match at(unix(0)) {
            webpki::Error::CertNotValidYet { not_before, .. } => not_before,
            webpki::Error::CertExpired { .. } | webpki::Error::UnknownIssuer => unix(0),
            other => return Err(format!("{other:?}")),
        };
        let not_after = match at(unix(u64::MAX)) {
            webpki::Error::CertExpired { not_after, .. } => not_after,
            other => return Err(format!("{other:?}")),
        };
        Ok(Self { not_before, not_after })
    }

    /// Why it is not valid at `now`.
    pub(crate) fn check(self, now: UnixTime) -> Result<(), String> {
        if now > self.not_after {
            return Err(format!("the certificate expired at {}", date(self.not_after)));
        }
        if now < self.not_before {
            return Err(format!("the certificate is not valid before {}", date(self.not_before)));
        }
        Ok(())
    }
}

/// The URIs among the subject alternative names of a certificate.
pub(crate) fn uris(certificate: &CertificateDer<'_>) -> Vec<String> {
    let parsed = EndEntityCert::try_from(certificate);
    parsed.map_or_else(|_| Vec::new(), |parsed| parsed.valid_uri_names().map(str::to_owned).collect())
}

/// A time as 2026-11-24T17:00:00Z.
pub(crate) fn date(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    let Ok(time) = OffsetDateTime::from_unix_timestamp(seconds) else { return "the end of time".to_owned() };
    let (year, month, day) = (time.year(), u8::from(time.month()), time.day());
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", time.hour(), time.minute(), time.second())
}
