//! Where an action may connect to: checked on the address that is connected to, so that names, redirects and odd
//! spellings cannot lead around it.
//!
//! Link-local and metadata addresses are refused always. Loopback, private, unspecified, multicast and reserved ones
//! are refused unless a rule allows them. An IPv6 address that embeds an IPv4 one (mapped, compatible, NAT64, 6to4,
//! Teredo) is as good as the worse of the two.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// The rules of where to connect. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Egress {
    rules: Arc<[Rule]>,
    /// Targets that the operator configured: private addresses need no rule.
    trusted: bool,
}

/// An `egress.allow` entry that is neither an address, a CIDR nor a host pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("egress rule {0:?} is no address, CIDR or host pattern: write for example 10.0.0.0/8, edr.corp or *.corp")]
pub struct InvalidEgressRule(pub String);

/// Why an address is not connected to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("{host} is {address}, {what}: such addresses are always refused")]
    Always { host: String, address: IpAddr, what: &'static str },
    #[error("{host} is {address}, {what}: refused unless egress.allow in stanch.yaml names it")]
    NotAllowed { host: String, address: IpAddr, what: &'static str },
}

#[derive(Clone, Debug)]
enum Rule {
    V4 { network: u32, mask: u32 },
    V6 { network: u128, mask: u128 },
    Host(HostPattern),
}

impl Egress {
    /// Rules that allow these addresses, CIDRs and host patterns (`edr.corp`; `*.corp`: whatever ends in `.corp`) on top
    /// of all public addresses.
    ///
    /// # Errors
    /// [`InvalidEgressRule`] for an entry that is none of them.
    pub fn new<I>(allow: I) -> Result<Self, InvalidEgressRule>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let rules = allow.into_iter().map(|rule| Rule::parse(rule.as_ref())).collect::<Result<_, _>>()?;
        Ok(Self { rules, trusted: false })
    }

    /// Rules for targets from the operator's own configuration: only link-local and metadata addresses are refused.
    pub(crate) fn trusted() -> Self {
        Self { rules: Arc::default(), trusted: true }
    }

    /// Whether `address`, to which `host` resolved (or which it spells), may be connected to.
    pub(crate) fn check(&self, host: &str, address: IpAddr) -> Result<(), Refused> {
        let (class, what) = classify(address);
        let host = || host.to_owned();
        match class {
            Class::Public => Ok(()),
            Class::Never => Err(Refused::Always { host: host(), address, what }),
            Class::Inner if self.trusted || self.allows(&host(), address) => Ok(()),
            Class::Inner => Err(Refused::NotAllowed { host: host(), address, what }),
        }
    }

    /// The same for a URL's host, where it spells an address. A name passes: the resolver checks what it leads to.
    pub(crate) fn check_literal(&self, host: &str) -> Result<(), Refused> {
        match bare_host(host).parse() {
            Ok(address) => self.check(host, address),
            Err(_) => Ok(()),
        }
    }

    fn allows(&self, host: &str, address: IpAddr) -> bool {
        let embedded = match address {
            IpAddr::V4(v4) => Some(v4),
            IpAddr::V6(v6) => embedded(v6),
        };
        self.rules.iter().any(|rule| match rule {
            Rule::V4 { network, mask } => embedded.is_some_and(|v4| v4.to_bits() & mask == *network),
            Rule::V6 { network, mask } => matches!(address, IpAddr::V6(v6) if v6.to_bits() & mask == *network),
            Rule::Host(pattern) => pattern.matches(host),
        })
    }
}

impl Rule {
    fn parse(text: &str) -> Result<Self, InvalidEgressRule> {
        let invalid = || InvalidEgressRule(text.chars().take(100).collect());
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length.parse::<u32>().map_err(|_| invalid())?)),
            None => (text, None),
        };
        match bare_host(address).parse() {
            Ok(IpAddr::V4(v4)) => {
                let length = length.unwrap_or(32);
                let mask = if length == 0 { 0 } else { u32::MAX.checked_shl(32 - length.min(32)).unwrap_or(0) };
                (length <= 32).then_some(Self::V4 { network: v4.to_bits() & mask, mask }).ok_or_else(invalid)
            }
            Ok(IpAddr::V6(v6)) => {
                let length = length.unwrap_or(128);
                let mask = if length == 0 { 0 } else { u128::MAX.checked_shl(128 - length.min(128)).unwrap_or(0) };
                (length <= 128).then_some(Self::V6 { network: v6.to_bits() & mask, mask }).ok_or_else(invalid)
            }
            Err(_) if length.is_none() => HostPattern::parse(text).map(Self::Host).ok_or_else(invalid),
            Err(_) => Err(invalid()),
        }
    }
}

/// `edr.corp` matches itself; `*.corp` whatever ends in `.corp`; `*` all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostPattern(String);

impl HostPattern {
    /// A pattern from its text; none where it is no host name.
    pub fn parse(given: &str) -> Option<Self> {
        let text = bare_host(given).to_ascii_lowercase();
        let name = text.strip_prefix("*.").unwrap_or(&text);
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
        let valid = given == "*"
            || (!name.is_empty() && name.len() <= 253 && name.chars().all(known))
                && (!name.contains(':') || name.parse::<Ipv6Addr>().is_ok());
        valid.then_some(Self(text))
    }

    /// Whether a URL's host is meant.
    pub fn matches(&self, host: &str) -> bool {
        let host = bare_host(host).to_ascii_lowercase();
        match self.0.strip_prefix('*') {
            Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
            None => host == self.0,
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A host without IPv6's brackets and without the root's dot.
pub(crate) fn bare_host(host: &str) -> &str {
    let host = host.strip_suffix('.').unwrap_or(host);
    host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(host)
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Class {
    Public,
    Inner,
    Never,
}

fn classify(address: IpAddr) -> (Class, &'static str) {
    match address {
        IpAddr::V4(v4) => classify_v4(v4),
        IpAddr::V6(v6) => {
            let own = classify_v6(v6);
            match embedded(v6).map(classify_v4) {
                Some(inner) if inner.0 > own.0 => inner,
                _ => own,
            }
        }
    }
}

fn classify_v4(v4: Ipv4Addr) -> (Class, &'static str) {
    let [a, b, c, _] = v4.octets();
    match v4.octets() {
        // AWS, GCP, Azure and most others are 169.254.169.254; these are Alibaba's, Oracle's and Azure's second.
        [100, 100, 100, 200] | [192, 0, 0, 192] | [168, 63, 129, 16] => (Class::Never, "a cloud's metadata service"),
        [169, 254, ..] => (Class::Never, "link-local or a cloud's metadata service"),
        [127, ..] => (Class::Inner, "a loopback address"),
        [0, ..] => (Class::Inner, "an unspecified address"),
        _ if v4.is_private() || (a == 100 && b & 0xc0 == 64) => (Class::Inner, "a private address"),
        _ if v4.is_multicast() => (Class::Inner, "a multicast address"),
        _ if a >= 240 || v4.is_documentation() || (a == 198 && b & 0xfe == 18) || (a == 192 && b == 0 && c == 0) => {
            (Class::Inner, "a reserved address")
        }
        _ => (Class::Public, "public"),
    }
}

fn classify_v6(v6: Ipv6Addr) -> (Class, &'static str) {
    let s = v6.segments();
    match s {
        // AWS (fd00:ec2::254 and its neighbours), GCP.
        [0xfd00, 0x0ec2, ..] | [0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x0254] => (Class::Never, "a cloud's metadata service"),
        [0xfe80..=0xfebf, ..] => (Class::Never, "a link-local address"),
        [0, 0, 0, 0, 0, 0, 0, 0] => (Class::Inner, "an unspecified address"),
        [0, 0, 0, 0, 0, 0, 0, 1] => (Class::Inner, "a loopback address"),
        [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => (Class::Inner, "a private address"),
        [0xff00..=0xffff, ..] => (Class::Inner, "a multicast address"),
        [0x0100, 0, 0, 0, ..] | [0x2001, 0x0db8, ..] => (Class::Inner, "a reserved address"),
        // NAT64's local prefix (RFC 8215): where the IPv4 part stands in it is each network's choice.
        [0x0064, 0xff9b, 1, ..] => (Class::Inner, "a translated address"),
        _ => (Class::Public, "public"),
    }
}

/// The IPv4 address that an IPv6 one leads to.
fn embedded(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let s = v6.segments();
    let join = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match s {
        [0, 0, 0, 0, 0, 0, 0, 0..=1] => None,
        // Mapped, compatible, translated (RFC 2765), NAT64 (RFC 6052, RFC 8215).
        [0, 0, 0, 0, 0, 0xffff | 0, h, l] | [0, 0, 0, 0, 0xffff, 0, h, l] => Some(join(h, l)),
        [0x0064, 0xff9b, 0, 0, 0, 0, h, l] | [0x0064, 0xff9b, 1, _, _, _, h, l] => Some(join(h, l)),
        [0x2002, h, l, ..] => Some(join(h, l)),
        [0x2001, 0, .., h, l] => Some(join(!h, !l)),
        // ISATAP (RFC 5214).
        [.., 0 | 0x0200, 0x5efe, h, l] => Some(join(h, l)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(allow: &[&str], host: &str, address: &str) -> Result<(), Refused> {
        Egress::new(allow).unwrap().check(host, address.parse().unwrap())
    }

    #[test]
    fn link_local_and_metadata_addresses_are_refused_whatever_is_allowed() {
        let everything = ["0.0.0.0/0", "::/0", "*", "169.254.169.254", "meta.corp"];
        for address in [
            "169.254.169.254",
            "169.254.0.1",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "fe80::1",
            "febf::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "::ffff:0:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
            "2001:0:1:2:3:4:5601:5601",
            "2a00::5efe:a9fe:a9fe",
        ] {
            for egress in [Egress::new(everything).unwrap(), Egress::trusted()] {
                let refused = egress.check("meta.corp", address.parse().unwrap());
                assert!(matches!(refused, Err(Refused::Always { .. })), "{address}: {refused:?}");
            }
        }
    }

    #[test]
    fn inner_addresses_are_refused_unless_allowed() {
        for address in [
            "127.0.0.1",
            "127.8.8.8",
            "0.0.0.0",
            "0.1.2.3",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "198.18.0.1",
            "::",
            "::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
        ] {
            let refused = check(&[], "h.corp", address);
            assert!(matches!(refused, Err(Refused::NotAllowed { .. })), "{address}: {refused:?}");
            assert_eq!(check(&["*.corp"], "h.corp", address), Ok(()), "{address} by host");
            assert_eq!(check(&["0.0.0.0/0", "::/0"], "h.corp", address), Ok(()), "{address} by network");
            assert_eq!(Egress::trusted().check("h.corp", address.parse().unwrap()), Ok(()), "{address} trusted");
        }
    }

    #[test]
    fn public_addresses_need_no_rule() {
        for address in ["1.1.1.1", "172.32.0.1", "100.128.0.1", "11.0.0.1", "2606:4700::1111", "2002:101:101::1"] {
            assert_eq!(check(&[], "example.org", address), Ok(()), "{address}");
        }
    }

    #[test]
    fn rules_cover_what_they_name_and_nothing_beside_it() {
        assert!(check(&["10.0.0.0/8"], "h", "10.255.0.1").is_ok());
        assert!(check(&["10.0.0.0/8"], "h", "::ffff:10.0.0.1").is_ok());
        assert!(check(&["10.0.0.0/8"], "h", "192.168.0.1").is_err());
        assert!(check(&["127.0.0.1"], "h", "127.0.0.1").is_ok());
        assert!(check(&["127.0.0.1"], "h", "127.0.0.2").is_err());
        assert!(check(&["fd12::/16"], "h", "fd12::1").is_ok());
        assert!(check(&["fd12::/16"], "h", "fd13::1").is_err());
        assert!(check(&["*.corp"], "corp", "10.0.0.1").is_err());
        assert!(check(&["*.corp"], "evilcorp", "10.0.0.1").is_err());
        assert!(check(&["*.Corp"], "A.b.CORP.", "10.0.0.1").is_ok());
        assert!(check(&["edr.corp"], "x.edr.corp", "10.0.0.1").is_err());
    }

    #[test]
    fn a_rule_of_another_form_is_refused() {
        for rule in
            ["", "10.0.0.0/33", "::/129", "http://edr.corp", "edr.corp/8", "a b", "edr.corp:8080", "*.", "10.0.0.0/x"]
        {
            assert_eq!(Egress::new([rule]).unwrap_err(), InvalidEgressRule(rule.to_owned()));
        }
    }

    #[test]
    fn literals_are_checked_and_names_left_to_the_resolver() {
        let egress = Egress::default();
        assert!(egress.check_literal("127.0.0.1").is_err());
        assert!(egress.check_literal("[::1]").is_err());
        assert!(egress.check_literal("localhost").is_ok());
    }
}
