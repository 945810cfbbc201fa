//! What every gRPC answer carries, errors and unknown methods included: request id, leader, revision, and a place in the
//! metrics.

use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue};
use llm_config_replica::Replica;
use parking_lot::Mutex;
use tonic::{Code, Status};

use super::{REVISION, error};
use crate::request_id::{REQUEST_ID, RequestId};
use crate::service::Service;

const LEADER: HeaderName = HeaderName::from_static("x-config-leader");
/// A hint, not a promise: asking the replica for each answer would cost more than it is worth.
const LEADER_AGE_MAX: Duration = Duration::from_millis(50);

/// Every method that is served, and a word for all others. The label of the metrics knows no other one.
const METHODS: [&str; 46] = [
    "/llmconfig.v1.ConfigService/Get",
    "/llmconfig.v1.ConfigService/Set",
    "/llmconfig.v1.ConfigService/Delete",
    "/llmconfig.v1.ConfigService/List",
    "/llmconfig.v1.ConfigService/ListNamespaces",
    "/llmconfig.v1.ConfigService/History",
    "/llmconfig.v1.ConfigService/Diff",
    "/llmconfig.v1.ConfigService/Rollback",
    "/llmconfig.v1.ConfigService/Resolve",
    "/llmconfig.v1.ConfigService/Txn",
    "/llmconfig.v1.ConfigService/Export",
    "/llmconfig.v1.ConfigService/Watch",
    "/llmconfig.v1.ClusterService/Status",
    "/llmconfig.v1.ClusterService/MemberAdd",
    "/llmconfig.v1.ClusterService/MemberPromote",
    "/llmconfig.v1.ClusterService/MemberDemote",
    "/llmconfig.v1.ClusterService/MemberRemove",
    "/llmconfig.v1.ClusterService/MemberReplace",
    "/llmconfig.v1.ClusterService/TransferLeader",
    "/llmconfig.v1.BackupService/Create",
    "/llmconfig.v1.BackupService/List",
    "/llmconfig.v1.BackupService/Keep",
    "/llmconfig.v1.SecurityService/CreateToken",
    "/llmconfig.v1.SecurityService/ListTokens",
    "/llmconfig.v1.SecurityService/RevokeToken",
    "/llmconfig.v1.SecurityService/PutRole",
    "/llmconfig.v1.SecurityService/GetRole",
    "/llmconfig.v1.SecurityService/ListRoles",
    "/llmconfig.v1.SecurityService/DeleteRole",
    "/llmconfig.v1.SecurityService/WhoAmI",
    "/llmconfig.v1.SecurityService/ListBans",
    "/llmconfig.v1.SecurityService/LiftBan",
    "/llmconfig.v1.SecurityService/ListAudit",
    "/llmconfig.v1.SecurityService/VerifyAudit",
    "/llmconfig.v1.SecurityService/GetAuditRetention",
    "/llmconfig.v1.SecurityService/SetAuditRetention",
    "/llmconfig.v1.SecurityService/ListKeys",
    "/llmconfig.v1.SecurityService/RotateKeys",
    "/llmconfig.v1.SchemaService/PutSchema",
    "/llmconfig.v1.SchemaService/GetSchema",
    "/llmconfig.v1.SchemaService/ListSchemas",
    "/llmconfig.v1.SchemaService/DeleteSchema",
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    UNKNOWN,
];
const UNKNOWN: &str = "unknown";

/// The method of a path, as the metrics call it.
pub(super) fn method(path: &str) -> &'static str {
    METHODS.into_iter().find(|method| *method == path).unwrap_or(UNKNOWN)
}

/// Shared by the answers of one node.
pub(super) struct Answers {
    service: Service,
    leader: LeaderHint,
}

impl Answers {
    pub(super) fn new(service: Service) -> Self {
        service.metrics().grpc_known(&METHODS, &error::CODE_NAMES);
        Self { leader: LeaderHint::default(), service }
    }

    /// Fills in what the handler did not say itself.
    pub(super) fn complete(
        &self,
        headers: &mut HeaderMap,
        method: &'static str,
        id: RequestId,
        begun: Instant,
    ) {
        let replica = self.service.replica();
        let leader = self.leader.get(replica);
        let code = restate(headers, leader.as_ref().and_then(|leader| leader.to_str().ok()));
        if !headers.contains_key(REVISION) {
            headers.insert(REVISION, replica.applied_revision().into());
        }
        if let Some(leader) = leader {
            headers.insert(LEADER, leader);
        }
        headers.insert(REQUEST_ID, id.into_header());
        self.service.metrics().grpc(method, error::code_name(code), begun.elapsed());
    }
}

/// The code of an answer that has no message. A refusal by the transport gets the form that all errors have.
fn restate(headers: &mut HeaderMap, leader: Option<&str>) -> Code {
    if !headers.contains_key(Status::GRPC_STATUS) {
        return Code::Ok;
    }
    let Some(status) = Status::from_header_map(headers) else { return Code::Unknown };
    let Some(refusal) = error::of_undecodable(&status, super::REQUEST_BYTES_MAX) else {
        return status.code();
    };
    let restated = error::status(&refusal, leader);
    // Fails only for a message that no header can carry; the original answer stays then.
    if restated.add_header(headers).is_ok() { restated.code() } else { status.code() }
}

/// The leader's client gRPC address as it was a moment ago.
#[derive(Default)]
pub(super) struct LeaderHint {
    seen: Mutex<Option<(Instant, Option<HeaderValue>)>>,
}

impl LeaderHint {
    fn get(&self, replica: &Replica) -> Option<HeaderValue> {
        let mut seen = self.seen.lock();
        if let Some((at, leader)) = seen.as_ref()
            && at.elapsed() < LEADER_AGE_MAX
        {
            return leader.clone();
        }
        let leader =
            leader_address(replica).and_then(|address| HeaderValue::from_str(&address).ok());
        *seen = Some((Instant::now(), leader.clone()));
        leader
    }
}

/// The client gRPC address of the leader, once it has told it.
pub(super) fn leader_address(replica: &Replica) -> Option<String> {
    replica.leader_addresses().map(|leader| leader.grpc).filter(|address| !address.is_empty())
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use prost_types::FileDescriptorSet;

    use super::*;

    #[test]
    fn every_public_method_has_a_label() {
        let descriptors = FileDescriptorSet::decode(llm_config_proto::FILE_DESCRIPTOR_SET).unwrap();
        let public = descriptors.file.iter().filter(|file| file.package() == "llmconfig.v1");
        let mut seen = 0;
        for (file, service) in
            public.flat_map(|file| file.service.iter().map(move |service| (file, service)))
        {
            for method in &service.method {
                let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                assert!(METHODS.contains(&path.as_str()), "{path} has no label");
                seen += 1;
            }
        }
        // Two of health, one of reflection, and the word for all others.
        assert_eq!(seen, METHODS.len() - 4);
    }

    #[test]
    fn a_message_that_does_not_decode_is_the_callers_mistake() {
        let mut headers = HeaderMap::new();
        let refused = Status::internal(
            "failed to decode Protobuf message: GetRequest.key: invalid string value",
        );
        refused.add_header(&mut headers).unwrap();
        assert_eq!(restate(&mut headers, None), Code::InvalidArgument);
        assert_eq!(Status::from_header_map(&headers).unwrap().code(), Code::InvalidArgument);
    }

    #[test]
    fn other_answers_keep_their_code() {
        assert_eq!(restate(&mut HeaderMap::new(), None), Code::Ok);
        let mut headers = HeaderMap::new();
        Status::internal("a fault").add_header(&mut headers).unwrap();
        assert_eq!(restate(&mut headers, None), Code::Internal);
    }
}
