//! Calls about who may do what, the audit log, keys and members.

use jepsen_lite::history::{Answer, AuditRecord, Call, Chain, Member, Policy, Read, Right, Target};
use llm_config_client::v1;
use tonic::Status;
use tonic::transport::Channel;
use v1::cluster_service_client::ClusterServiceClient;
use v1::security_service_client::SecurityServiceClient;

use super::calls::{Envelope, Made, PAGE, revision_of};
use super::{Address, convert};

type Stub = SecurityServiceClient<Channel>;

pub(super) async fn make(channel: Channel, call: &Call, envelope: &Envelope<'_>) -> Made {
    let mut stub = Stub::new(channel.clone());
    match call {
        Call::Policy { change } => {
            change_policy(&mut stub, change, envelope).await?;
            Ok((None, None))
        }
        Call::RotateKeys => {
            let target = v1::RotationTarget::Data.into();
            let request = v1::RotateKeysRequest { target, ..v1::RotateKeysRequest::default() };
            stub.rotate_keys(envelope.around(request)).await?;
            Ok((None, None))
        }
        Call::Audit { read } => audit(&mut stub, *read, envelope).await,
        Call::VerifyAudit => {
            let request = envelope.around(v1::VerifyAuditRequest {});
            let walked = stub.verify_audit(request).await?.into_inner();
            let chain = chain(walked.verdict)?;
            Ok((Some(walked.revision), Some(Answer::Chain { chain })))
        }
        _ => {
            let request = envelope.around(v1::StatusRequest {});
            let status = ClusterServiceClient::new(channel).status(request).await?.into_inner();
            let member =
                |member: v1::Member| Member { id: member.id, votes: member.role != "learner" };
            let mut members: Vec<_> = status.members.into_iter().map(member).collect();
            members.sort_unstable();
            let answer = Answer::Members { term: status.term, leader: status.leader_id, members };
            Ok((Some(status.revision), Some(answer)))
        }
    }
}

async fn change_policy(
    stub: &mut Stub,
    change: &Policy,
    envelope: &Envelope<'_>,
) -> Result<(), Status> {
    match change {
        Policy::CreateToken { token, role, namespace } => {
            let request = v1::CreateTokenRequest {
                name: token.clone(),
                roles: vec![role.clone()],
                namespaces: vec![namespace.clone()],
                ..v1::CreateTokenRequest::default()
            };
            let made = stub.create_token(envelope.around(request)).await?.into_inner();
            let info = made.info.ok_or_else(|| Status::internal("a token without what it is"))?;
            envelope.vault.keep(token, info.id, &made.token);
        }
        Policy::RevokeToken { token } => {
            let badge = envelope.vault.badge(token);
            let badge = badge.ok_or_else(|| Status::internal("a token that nobody has"))?;
            let request = v1::RevokeTokenRequest { id: badge.id().to_owned() };
            stub.revoke_token(envelope.around(request)).await?;
        }
        Policy::PutRole { role, allows } => {
            let actions = allows.iter().map(|right: &Right| right.word().to_owned()).collect();
            let grant = v1::Grant { actions, ..v1::Grant::default() };
            let role = v1::Role { name: role.clone(), grants: vec![grant], ..v1::Role::default() };
            stub.put_role(envelope.around(v1::PutRoleRequest { role: Some(role) })).await?;
        }
        Policy::DeleteRole { role } => {
            let request = v1::DeleteRoleRequest { name: role.clone() };
            stub.delete_role(envelope.around(request)).await?;
        }
    }
    Ok(())
}

async fn audit(stub: &mut Stub, read: Read, envelope: &Envelope<'_>) -> Made {
    let mut records = Vec::new();
    let mut request = v1::ListAuditRequest {
        oldest_first: true,
        limit: PAGE,
        read: Some(convert::read(read)),
        ..v1::ListAuditRequest::default()
    };
    loop {
        let response = stub.list_audit(envelope.around(request.clone())).await?;
        let revision = revision_of(response.metadata());
        let page = response.into_inner();
        for record in page.items {
            records.push(self::record(record)?);
        }
        if page.next_cursor.is_empty() {
            return Ok((revision, Some(Answer::Audit { records })));
        }
        request.cursor = page.next_cursor;
    }
}

fn record(record: v1::AuditRecord) -> Result<AuditRecord, Status> {
    let time = record.time.ok_or_else(|| Status::internal("a record without its time"))?;
    let ms = time.seconds.saturating_mul(1_000).saturating_add(i64::from(time.nanos / 1_000_000));
    let target = |target: v1::AuditTarget| {
        let v1::AuditTarget { namespace, key, environment, version } = target;
        Target { key: Address { namespace, key, environment }.to_string(), version }
    };
    Ok(AuditRecord {
        sequence: record.sequence,
        time_ms: u64::try_from(ms).map_err(|_| Status::internal("a record before 1970"))?,
        revision: record.revision,
        what: record.r#type,
        request: record.request_id,
        targets: record.targets.into_iter().map(target).collect(),
        previous: hex(&record.previous_hash),
        hash: hex(&record.hash),
    })
}

fn chain(verdict: Option<v1::verify_audit_response::Verdict>) -> Result<Chain, Status> {
    use v1::verify_audit_response::Verdict;
    match verdict {
        Some(Verdict::Whole(whole)) => Ok(Chain {
            first: whole.first_sequence,
            last: whole.last_sequence,
            head: hex(&whole.head),
            broken: None,
        }),
        Some(Verdict::Broken(broken)) => Ok(Chain {
            first: 0,
            last: 0,
            head: String::new(),
            broken: Some(format!("record {}: {}", broken.sequence, broken.reason)),
        }),
        None => Err(Status::internal("a walk without its verdict")),
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // A string takes everything.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
