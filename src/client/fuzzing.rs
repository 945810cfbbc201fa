//! Bodies of the fuzz targets for what a node answers beside its messages (refusals, and the address of the leader), and
//! for the cache file.
//!
//! Whatever a node or a proxy answers, a call ends with one of the SDK's errors. The targets are in `.ci/fuzz`; the test
//! below runs the bodies over its inputs.

use bytes::Bytes;
use tonic::{Code, Status};

use crate::error::Rejection;
use crate::nodes::parse;
use crate::retry::{Failure, classify};

/// A refusal: the first byte is the code of the status, then come its details.
pub fn refusal(data: &[u8]) {
    let Some((code, details)) = data.split_first() else { return };
    let code = Code::from_i32(i32::from(*code));
    let details = Bytes::copy_from_slice(details);
    let failure = classify(&Status::with_details(code, "the message", details)).at("node:1");
    assert!(!failure.reason().is_empty());
    if let Failure::Rejected(rejection) = failure {
        check_numbers(&rejection);
    }
}

fn check_numbers(rejection: &Rejection) {
    for (name, number) in [
        ("current_version", rejection.current_version()),
        ("oldest_revision", rejection.oldest_revision()),
    ] {
        let sent = rejection.details.get(name).and_then(|text| text.parse().ok());
        assert_eq!(number, sent);
    }
}

/// The address of a node: given by the user, or by a node that names its leader.
pub fn endpoint(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(parsed) = parse(text) else { return };
    let address = parsed.address;
    assert_eq!(parse(&address).ok().map(|again| again.address).as_ref(), Some(&address));
    assert!(
        tonic::transport::Endpoint::from_shared(format!("http://{address}")).is_ok(),
        "an address that cannot be connected to: {address}"
    );
}

/// The cache file of a live configuration, which anybody may have written.
pub fn cache_file(data: &[u8]) {
    crate::live::fuzz_cache_file(data);
}

#[cfg(test)]
mod tests {
    use crate::replay::run;

    #[test]
    fn the_inputs_of_each_target_pass() {
        run("refusal", super::refusal);
        run("endpoint", super::endpoint);
        run("cache_file", super::cache_file);
    }
}
