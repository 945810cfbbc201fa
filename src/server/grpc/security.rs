//! `llmconfig.v1.SecurityService`.

use llm_config_domain as domain;
use llm_config_domain::{Action, Credential, Environment, Namespace, Scope};
use llm_config_proto::v1;
use llm_config_proto::v1::security_service_server::SecurityService;
use llm_config_proto::v1::verify_audit_response::Verdict;
use tonic::{Request, Response, Status};

use super::call::{self, Call, read};
use super::convert;
use crate::error::ServiceError;
use crate::service::{
    AuditRequest, CreateTokenRequest, GrantRequest, KeyState, PutRoleRequest, Rotation, Service,
};

pub(super) struct SecurityGateway {
    service: Service,
}

impl SecurityGateway {
    pub(super) fn new(service: Service) -> Self {
        Self { service }
    }

    fn refuse(&self, error: ServiceError) -> Status {
        call::refuse(&self.service, error)
    }
}

#[tonic::async_trait]
impl SecurityService for SecurityGateway {
    async fn create_token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Result<Response<v1::CreateTokenResponse>, Status> {
        let Call { message, context } = call::open(&self.service, request)?;
        let request = CreateTokenRequest {
            name: message.name,
            roles: message.roles,
            namespaces: message.namespaces,
            environments: message.environments,
            expires_in_seconds: message.expires_in_seconds,
            certificate: message.certificate,
        };
        let created = self.service.create_token(&context, request).await;
        let created = created.map_err(|error| self.refuse(error))?;
        Ok(Response::new(v1::CreateTokenResponse {
            info: Some(token(created.token)),
            token: created.text.unwrap_or_default(),
        }))
    }

    async fn list_tokens(
        &self,
        request: Request<v1::ListTokensRequest>,
    ) -> Result<Response<v1::ListTokensResponse>, Status> {
        let Call { context, .. } = call::open(&self.service, request)?;
        let known = self.service.tokens(&context).await.map_err(|error| self.refuse(error))?;
        let items = known.into_iter().map(token).collect();
        Ok(Response::new(v1::ListTokensResponse { items }))
    }

    async fn revoke_token(
        &self,
        request: Request<v1::RevokeTokenRequest>,
    ) -> Result<Response<v1::RevokeTokenResponse>, Status> {
        let Call { message, context } = call::open(&self.service, request)?;
        let revoked = self.service.revoke_token(&context, &message.id).await;
        revoked.map_err(|error| self.refuse(error))?;
        Ok(Response::new(v1::RevokeTokenResponse {}))
    }

    async fn put_role(
        &self,
        request: Request<v1::PutRoleRequest>,
    ) -> Result<Response<v1::PutRoleResponse>, Status> {
        let Call { message, context } = call::open(&self.service, request)?;
        let wanted = present("role", message.role).map_err(|error| self.refuse(error))?;
        let request = PutRoleRequest {
            name: wanted.name,
            description: wanted.description,
            grants: wanted.grants.into_iter().map(grant_request).collect(),
        };
        let kept = self.service.put_role(&context, request).await;
        let kept = kept.map_err(|error| self.refuse(error))?;
        Ok(Response::new(v1::PutRoleResponse { role: Some(role(kept)) }))
    }

    async fn get_role(
        &self,
        request: Request<v1::GetRoleRequest>,
    ) -> Result<Response<v1::GetRoleResponse>, Status> {
        let Call { message, context } = call::open(&self.service, request)?;
        let known = self.service.role(&context, &message.name).await;
        let known = known.map_err(|error| self.refuse(error))?;
        Ok(Response::new(v1::GetRoleResponse { role: Some(role(known)) }))
    }

    async fn list_roles(
        &self,
        request: Request<v1::ListRolesRequest>,
    ) -> Result<Response<v1::ListRolesResponse>, Status> {
        let Call { context, .. } = call::open(&self.service, request)?;
        let known = self.service.roles(&context).await.map_err(|error| self.refuse(error))?;
        let items = known.into_iter().map(role).collect();
        Ok(Response::new(v1::ListRolesResponse { items }))
    }

    async fn delete_role(
        &self,
        request: Request<v1::DeleteRoleRequest>,
    ) -> Result<Response<v1::DeleteRoleResponse>, Status> {
        let Call { message, context } = call::open(&self.service, request)?;
        let deleted = self.service.delete_role(&context, &message.name).await;
        deleted.map_err(|error| self.refuse(error))?;
        Ok(Response::new(v1::DeleteRoleResponse {}))
    }

    async fn who_am_i(
        &self,
        request: Request<v1::WhoAmIRequest>,
    ) -> Result<Response<v1::WhoAmIResponse>, Status> {
        let Call { context, .. } = call::open(&self.service, request)?;
        let known = self.service.who_am_i(&context).await.map_err(|error| self.refuse(error))?;
        Ok(Response::new(v1::WhoAmIResponse {
            name: known.name,
            principal: known.principal,
            method: known.method.to_owned(),
            grants: known.rights.grants.iter().map(grant).collect(),
            namespaces: namespaces(&known.rights.within),
            environments: environments(&known.rights.within),
            expires_at: known.expires_at_ms.map(convert::timestamp),
        }))
    }

    async fn list_bans(
        &self,
        request: Request<v1::ListBansRequest>,
    ) -> Result<Response<v1::ListBansResponse>, Status> {
        let Call { context, .. } = call::open(&self.service, request)?;
        let bans = self.service.bans(&context).await.map_err(|error| self.refuse(error))?;
        let items = bans.into_iter().map(ban).collect();
        Ok(Response::new(v1::ListBansResponse { items }))
    }

    async fn lift_ban(
        &self,
        request: Request<v1::LiftBanRequest>,
    ) -> Result<Response<v1::LiftBanResponse>, Status> {
        let Call { message, context } = call::open(&self.service, request)?;
        let lifted = self.service.lift_ban(&context, &message.ip).await;
        lifted.map_err(|error| self.refuse(error))?;
        Ok(Response::new(v1::LiftBanResponse {}))
    }

    async fn list_audit(
        &self,
        request: Request<v1::ListAuditRequest>,
    ) -> Result<Response<v1::ListAuditResponse>, Status> {
        let Call { message, context } = call::open(&self.service, request)?;
        let request = audit_request(message).map_err(|error| self.refuse(error))?;
        let answer = self.service.audit(&context, request).await;
        let answer = answer.map_err(|error| self.refuse(error))?;
        let message = v1::ListAuditResponse {
            items: answer.items.into_iter().map(record).collect(),
            next_cursor: answer.next_cursor.unwrap_or_default(),
            revision: answer.revision,
        };
        Ok(read(message, answer.revision))
    }

    async fn verify_audit(
        &self,
        request: Request<v1::VerifyAuditRequest>,
    ) -> Result<Response<v1::VerifyAuditResponse>, Status> {
        let Call { context, .. } = call::open(&self.service, request)?;
        let walked = self.service.verify_audit(&context).await;
        let walked = walked.map_err(|error| self.refuse(error))?;
        let verdict = match walked.chain {
            Ok(chain) => Verdict::Whole(v1::AuditChain {
                first_sequence: chain.first,
                last_sequence: chain.last,
                head: chain.head.to_vec().into(),
            }),
            Err(at) => Verdict::Broken(v1::AuditBreak {
                sequence: at.sequence,
                reason: at.reason.to_owned(),
            }),
        };
        let message = v1::VerifyAuditResponse {
            node_id: self.service.replica().node_id(),
            revision: walked.revision,
            verdict: Some(verdict),
        };
        Ok(read(message, walked.revision))
    }

    async fn get_audit_retention(
        &self,
        request: Request<v1::GetAuditRetentionRequest>,
    ) -> Result<Response<v1::GetAuditRetentionResponse>, Status> {
        let Call { context, .. } = call::open(&self.service, request)?;
        let known = self.service.audit_retention(&context).await;
        let retention = Some(retention(known.map_err(|error| self.refuse(error))?));
        Ok(Response::new(v1::GetAuditRetentionResponse { retention }))
    }

    async fn set_audit_retention(
        &self,
        request: Request<v1::SetAuditRetentionRequest>,
    ) -> Result<Response<v1::SetAuditRetentionResponse>, Status> {
        let Call { message, context } = call::open(&self.service, request)?;
        let wanted = present("retention", message.retention).map_err(|error| self.refuse(error))?;
        let v1::AuditRetention { max_age_ms, max_bytes } = wanted;
        let wanted = domain::AuditRetention { max_age_ms, max_bytes };
        let kept = self.service.set_audit_retention(&context, wanted).await;
        let retention = Some(retention(kept.map_err(|error| self.refuse(error))?));
        Ok(Response::new(v1::SetAuditRetentionResponse { retention }))
    }

    async fn list_keys(
        &self,
        request: Request<v1::ListKeysRequest>,
    ) -> Result<Response<v1::ListKeysResponse>, Status> {
        let Call { context, .. } = call::open(&self.service, request)?;
        let ring = self.service.key_ring(&context).await.map_err(|error| self.refuse(error))?;
        let message = v1::ListKeysResponse {
            node_id: self.service.replica().node_id(),
            master_keys: ring.master_ids,
            data_keys: ring.keys.into_iter().map(key).collect(),
            revision: ring.revision,
        };
        Ok(read(message, ring.revision))
    }

    async fn rotate_keys(
        &self,
        request: Request<v1::RotateKeysRequest>,
    ) -> Result<Response<v1::RotateKeysResponse>, Status> {
        let Call { message, context } = call::open(&self.service, request)?;
        let rotation = rotation(message.target).map_err(|error| self.refuse(error))?;
        let namespace = convert::given(message.namespace);
        let rotated = self.service.rotate_keys(&context, rotation, namespace).await;
        let keys = rotated.map_err(|error| self.refuse(error))?;
        Ok(Response::new(v1::RotateKeysResponse { keys: keys as u64 }))
    }
}

/// A message that a request is nothing without.
fn present<T>(field: &'static str, message: Option<T>) -> Result<T, ServiceError> {
    message.ok_or_else(|| ServiceError::invalid(field, "is missing"))
}

fn audit_request(message: v1::ListAuditRequest) -> Result<AuditRequest, ServiceError> {
    let moment = |field, time: Option<prost_types::Timestamp>| {
        time.map(|time| convert::milliseconds(field, time)).transpose()
    };
    Ok(AuditRequest {
        kind: convert::given(message.r#type),
        actor: convert::given(message.actor),
        namespace: convert::given(message.namespace),
        key: convert::given(message.key),
        from_ms: moment("from", message.from)?,
        to_ms: moment("to", message.to)?,
        oldest_first: message.oldest_first,
        limit: convert::limit(message.limit),
        cursor: convert::given(message.cursor),
        read: convert::read_options(message.read)?,
    })
}

fn rotation(target: i32) -> Result<Rotation, ServiceError> {
    match v1::RotationTarget::try_from(target) {
        Ok(v1::RotationTarget::Unspecified | v1::RotationTarget::Data) => Ok(Rotation::Data),
        Ok(v1::RotationTarget::Master) => Ok(Rotation::Master),
        Err(_) => {
            Err(ServiceError::invalid("target", format!("{target} is not one of 0, 1 and 2")))
        }
    }
}

fn token(token: domain::Token) -> v1::Token {
    let certificate = match token.credential {
        Credential::Hash(_) => String::new(),
        Credential::Certificate(name) => name,
    };
    v1::Token {
        id: token.id,
        name: token.name,
        prefix: token.prefix,
        certificate,
        roles: token.roles,
        namespaces: namespaces(&token.scope),
        environments: environments(&token.scope),
        created_at: Some(convert::timestamp(token.created_at_ms)),
        created_by: token.created_by,
        expires_at: convert::time_unless_never(token.expires_at_ms),
    }
}

fn role(role: domain::Role) -> v1::Role {
    v1::Role {
        built_in: domain::Role::is_built_in(&role.name),
        name: role.name,
        description: role.description,
        grants: role.grants.iter().map(grant).collect(),
    }
}

fn grant(grant: &domain::Grant) -> v1::Grant {
    let word = |action: &Action| action.as_str().to_owned();
    v1::Grant {
        actions: grant.actions.iter().map(word).collect(),
        namespaces: namespaces(&grant.scope),
        environments: environments(&grant.scope),
    }
}

fn grant_request(grant: v1::Grant) -> GrantRequest {
    let v1::Grant { actions, namespaces, environments } = grant;
    GrantRequest { actions, namespaces, environments }
}

fn namespaces(scope: &Scope) -> Vec<String> {
    let name = |namespace: &Namespace| namespace.as_str().to_owned();
    scope.namespaces.iter().map(name).collect()
}

fn environments(scope: &Scope) -> Vec<String> {
    let name = |environment: &Environment| environment.as_str().to_owned();
    scope.environments.iter().map(name).collect()
}

fn ban(ban: domain::Ban) -> v1::Ban {
    v1::Ban {
        ip: ban.address,
        since: Some(convert::timestamp(ban.since_ms)),
        until: Some(convert::timestamp(ban.until_ms)),
        strikes: ban.strikes,
        reason: ban.reason,
    }
}

fn record(record: domain::AuditRecord) -> v1::AuditRecord {
    let event = record.event;
    let target = |target: domain::AuditTarget| v1::AuditTarget {
        namespace: target.address.namespace.as_str().to_owned(),
        key: target.address.key.as_str().to_owned(),
        environment: target.address.environment.as_str().to_owned(),
        version: target.version,
    };
    v1::AuditRecord {
        sequence: record.sequence,
        time: Some(convert::timestamp(record.time_ms)),
        revision: record.revision,
        r#type: event.kind.as_str().to_owned(),
        actor: event.actor,
        principal: event.principal,
        source: event.source,
        request_id: event.request_id,
        node_id: event.node,
        targets: event.targets.into_iter().map(target).collect(),
        comment: event.comment,
        detail: event.detail,
        previous_hash: record.previous.to_vec().into(),
        hash: record.hash.to_vec().into(),
    }
}

fn retention(kept: domain::AuditRetention) -> v1::AuditRetention {
    v1::AuditRetention { max_age_ms: kept.max_age_ms, max_bytes: kept.max_bytes }
}

fn key(key: KeyState) -> v1::DataKey {
    v1::DataKey {
        namespace: key.owner,
        version: key.version,
        master_key: key.master_id,
        created_at: Some(convert::timestamp(key.created_at_ms)),
        newest: key.newest,
        usable: key.usable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_target_is_named() {
        assert_eq!(rotation(0).unwrap(), Rotation::Data);
        assert_eq!(rotation(2).unwrap(), Rotation::Master);
        assert!(rotation(9).unwrap_err().to_string().starts_with("target: 9 "));
    }

    #[test]
    fn a_time_that_is_none_is_named() {
        let message = v1::ListAuditRequest {
            to: Some(prost_types::Timestamp { seconds: -5, nanos: 0 }),
            ..Default::default()
        };
        assert!(audit_request(message).unwrap_err().to_string().starts_with("to: "));
    }

    #[test]
    fn the_hash_of_a_token_does_not_leave_the_node() {
        let known = domain::Token {
            id: "id".into(),
            name: "ann".into(),
            prefix: "lcm_id".into(),
            credential: Credential::Hash([7; 32]),
            roles: vec!["viewer".into()],
            scope: Scope::default(),
            created_at_ms: 1_000,
            created_by: "root".into(),
            expires_at_ms: 0,
        };
        let shown = token(known.clone());
        assert_eq!((shown.certificate.as_str(), shown.expires_at), ("", None));
        let by_certificate = Credential::Certificate("ann.example".into());
        let shown = token(domain::Token { credential: by_certificate, expires_at_ms: 5, ..known });
        assert_eq!(shown.certificate, "ann.example");
        assert_eq!(shown.expires_at, Some(convert::timestamp(5)));
    }
}
