//! Which addresses may be asked, and which may follow which.

use std::net::IpAddr;

use reqwest::Url;

use crate::Error;

/// Whether two addresses have scheme, host and port in common.
pub(crate) fn same_origin(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme()
        && a.host() == b.host()
        && a.port_or_known_default() == b.port_or_known_default()
}

/// Whether an address is on this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether an address may be asked: https, or http on this machine, or any http if `insecure`.
pub(crate) fn permitted(url: &Url, insecure: bool) -> Result<(), Error> {
    let refused = |reason: &str| Error::Refused { url: url.to_string(), reason: reason.to_owned() };
    match url.scheme() {
        "https" => Ok(()),
        "http" if insecure || is_loopback(url) => Ok(()),
        "http" => Err(refused(
            "plain http can be read and changed by anyone on the way: it is used on this machine \
             alone, unless --insecure allows it",
        )),
        _ => Err(refused("only https (and http) addresses are fetched")),
    }
}

/// Where a redirect leads, if it may be followed.
pub(crate) fn next_hop(from: &Url, location: &str, insecure: bool) -> Result<Url, Error> {
    let shown = |url: &Url| {
        // A signed address grants access as a key does: its query is not shown.
        let mut url = url.clone();
        url.set_query(None);
        url
    };
    let refused = |reason: String| Error::Refused { url: shown(from).to_string(), reason };
    let next = from
        .join(location)
        .map_err(|error| refused(format!("it redirects to an invalid address ({error})")))?;
    if next.scheme() != "https" && next.scheme() != "http" {
        return Err(refused(format!("it redirects to a {}: address", next.scheme())));
    }
    if is_loopback(&next) && !is_loopback(from) {
        return Err(refused("it redirects to this machine".to_owned()));
    }
    if permitted(&next, insecure).is_err() {
        return Err(refused(format!("it redirects to plain http, at {}", shown(&next))));
    }
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn plain_http_stays_on_this_machine() {
        for good in ["https://a.org/", "http://127.0.0.1:5/", "http://[::1]/", "http://localhost/"]
        {
            assert!(permitted(&url(good), false).is_ok(), "{good}");
        }
        for bad in ["http://a.org/", "http://127.0.0.1.a.org/", "ftp://a.org/", "file:///x"] {
            assert!(permitted(&url(bad), false).is_err(), "{bad}");
        }
        assert!(permitted(&url("http://a.org/"), true).is_ok());
        assert!(permitted(&url("file:///x"), true).is_err());
    }

    #[test]
    fn redirects_lead_only_where_they_may() {
        let from = url("https://a.org/x?secret=1");
        assert_eq!(next_hop(&from, "/y", false).unwrap().as_str(), "https://a.org/y");
        assert!(next_hop(&from, "https://b.org/y", false).is_ok());
        for bad in
            ["http://b.org/", "file:///etc/passwd", "https://127.0.0.1/", "https://[::1]/", "//"]
        {
            let error = next_hop(&from, bad, false).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
        assert!(next_hop(&url("http://127.0.0.1:1/"), "http://127.0.0.1:2/", false).is_ok());
    }

    #[test]
    fn origins_are_scheme_host_and_port() {
        assert!(same_origin(&url("https://a.org/x"), &url("https://a.org:443/y")));
        for other in ["http://a.org/", "https://a.org:444/", "https://b.a.org/", "https://a.org.b/"]
        {
            assert!(!same_origin(&url("https://a.org/"), &url(other)), "{other}");
        }
    }
}
