//! Who may do what, as a fake: one token that is let in, and answers that are easily told apart.

use std::sync::{Arc, Mutex};

use llm_config_client::v1;
use llm_config_client::v1::security_service_server::SecurityService;
use llm_config_client::v1::verify_audit_response::Verdict;
use tonic::{Request, Response, Status};

use super::{found, refusal};

/// The one token.
pub(crate) const TOKEN: &str = "lcm_good";
/// The text of a token that is made.
pub(crate) const MADE: &str = "lcm_abc_text";

#[derive(Debug, Clone, Default)]
pub(crate) struct Security {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    tokens: Vec<v1::Token>,
    roles: Vec<v1::Role>,
    retention: v1::AuditRetention,
    broken: bool,
    lifted: Vec<String>,
    rotated: Vec<v1::RotateKeysRequest>,
}

impl Security {
    pub(crate) fn break_chain(&self) {
        self.state.lock().unwrap().broken = true;
    }

    pub(crate) fn lifted(&self) -> Vec<String> {
        self.state.lock().unwrap().lifted.clone()
    }

    pub(crate) fn rotated(&self) -> Vec<v1::RotateKeysRequest> {
        self.state.lock().unwrap().rotated.clone()
    }
}

fn record(sequence: u64) -> v1::AuditRecord {
    v1::AuditRecord {
        sequence,
        r#type: "config.set".into(),
        actor: "ann".into(),
        hash: vec![0xab; 32].into(),
        ..Default::default()
    }
}

fn not_found() -> Status {
    refusal(tonic::Code::NotFound, "NOT_FOUND")
}

#[tonic::async_trait]
impl SecurityService for Security {
    async fn create_token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Result<Response<v1::CreateTokenResponse>, Status> {
        let create = request.into_inner();
        let certificate = create.certificate.unwrap_or_default();
        let token = if certificate.is_empty() { MADE } else { "" }.to_owned();
        let info = v1::Token {
            id: "abc".into(),
            name: create.name,
            prefix: if token.is_empty() { String::new() } else { "lcm_abc".into() },
            certificate,
            roles: create.roles,
            namespaces: create.namespaces,
            environments: create.environments,
            ..Default::default()
        };
        self.state.lock().unwrap().tokens.push(info.clone());
        found(v1::CreateTokenResponse { info: Some(info), token })
    }

    async fn list_tokens(
        &self,
        _: Request<v1::ListTokensRequest>,
    ) -> Result<Response<v1::ListTokensResponse>, Status> {
        found(v1::ListTokensResponse { items: self.state.lock().unwrap().tokens.clone() })
    }

    async fn revoke_token(
        &self,
        request: Request<v1::RevokeTokenRequest>,
    ) -> Result<Response<v1::RevokeTokenResponse>, Status> {
        let id = request.into_inner().id;
        let mut state = self.state.lock().unwrap();
        let before = state.tokens.len();
        state.tokens.retain(|token| token.id != id);
        if state.tokens.len() == before {
            Err(not_found())
        } else {
            found(v1::RevokeTokenResponse {})
        }
    }

    async fn put_role(
        &self,
        request: Request<v1::PutRoleRequest>,
    ) -> Result<Response<v1::PutRoleResponse>, Status> {
        let role = request.into_inner().role.unwrap();
        let mut state = self.state.lock().unwrap();
        state.roles.retain(|known| known.name != role.name);
        state.roles.push(role.clone());
        found(v1::PutRoleResponse { role: Some(role) })
    }

    async fn get_role(
        &self,
        request: Request<v1::GetRoleRequest>,
    ) -> Result<Response<v1::GetRoleResponse>, Status> {
        let name = request.into_inner().name;
        let state = self.state.lock().unwrap();
        let role = state.roles.iter().find(|role| role.name == name).cloned();
        found(v1::GetRoleResponse { role: Some(role.ok_or_else(not_found)?) })
    }

    async fn list_roles(
        &self,
        _: Request<v1::ListRolesRequest>,
    ) -> Result<Response<v1::ListRolesResponse>, Status> {
        found(v1::ListRolesResponse { items: self.state.lock().unwrap().roles.clone() })
    }

    async fn delete_role(
        &self,
        request: Request<v1::DeleteRoleRequest>,
    ) -> Result<Response<v1::DeleteRoleResponse>, Status> {
        let name = request.into_inner().name;
        self.state.lock().unwrap().roles.retain(|role| role.name != name);
        found(v1::DeleteRoleResponse {})
    }

    async fn who_am_i(
        &self,
        request: Request<v1::WhoAmIRequest>,
    ) -> Result<Response<v1::WhoAmIResponse>, Status> {
        let shown = request.metadata().get("authorization").map(|shown| shown.to_str().unwrap());
        if shown != Some(format!("Bearer {TOKEN}").as_str()) {
            return Err(refusal(tonic::Code::Unauthenticated, "UNAUTHENTICATED"));
        }
        let grant = v1::Grant { actions: vec!["read".into()], ..Default::default() };
        found(v1::WhoAmIResponse {
            name: "ann".into(),
            method: "token".into(),
            grants: vec![grant],
            ..Default::default()
        })
    }

    async fn list_bans(
        &self,
        _: Request<v1::ListBansRequest>,
    ) -> Result<Response<v1::ListBansResponse>, Status> {
        let ban = v1::Ban { ip: "192.0.2.1".into(), strikes: 2, ..Default::default() };
        found(v1::ListBansResponse { items: vec![ban] })
    }

    async fn lift_ban(
        &self,
        request: Request<v1::LiftBanRequest>,
    ) -> Result<Response<v1::LiftBanResponse>, Status> {
        self.state.lock().unwrap().lifted.push(request.into_inner().ip);
        found(v1::LiftBanResponse {})
    }

    /// Three records on three pages, the second of which is empty.
    async fn list_audit(
        &self,
        request: Request<v1::ListAuditRequest>,
    ) -> Result<Response<v1::ListAuditResponse>, Status> {
        let list = request.into_inner();
        let (mut items, next) = match list.cursor.as_str() {
            "" => (vec![record(3), record(2)], "a"),
            "a" => (Vec::new(), "b"),
            _ => (vec![record(1)], ""),
        };
        if list.r#type == "none" {
            items.clear();
        }
        found(v1::ListAuditResponse { items, next_cursor: next.to_owned(), revision: 9 })
    }

    async fn verify_audit(
        &self,
        _: Request<v1::VerifyAuditRequest>,
    ) -> Result<Response<v1::VerifyAuditResponse>, Status> {
        let verdict = if self.state.lock().unwrap().broken {
            Verdict::Broken(v1::AuditBreak { sequence: 2, reason: "it was altered".into() })
        } else {
            Verdict::Whole(v1::AuditChain {
                first_sequence: 1,
                last_sequence: 3,
                head: vec![0xab; 32].into(),
            })
        };
        found(v1::VerifyAuditResponse { node_id: 1, revision: 9, verdict: Some(verdict) })
    }

    async fn get_audit_retention(
        &self,
        _: Request<v1::GetAuditRetentionRequest>,
    ) -> Result<Response<v1::GetAuditRetentionResponse>, Status> {
        let retention = Some(self.state.lock().unwrap().retention);
        found(v1::GetAuditRetentionResponse { retention })
    }

    async fn set_audit_retention(
        &self,
        request: Request<v1::SetAuditRetentionRequest>,
    ) -> Result<Response<v1::SetAuditRetentionResponse>, Status> {
        let retention = request.into_inner().retention.unwrap();
        self.state.lock().unwrap().retention = retention;
        found(v1::SetAuditRetentionResponse { retention: Some(retention) })
    }

    async fn list_keys(
        &self,
        _: Request<v1::ListKeysRequest>,
    ) -> Result<Response<v1::ListKeysResponse>, Status> {
        let key = v1::DataKey { namespace: "team".into(), version: 3, ..Default::default() };
        found(v1::ListKeysResponse {
            node_id: 1,
            master_keys: vec!["m-1".into()],
            data_keys: vec![key],
            revision: 9,
        })
    }

    async fn rotate_keys(
        &self,
        request: Request<v1::RotateKeysRequest>,
    ) -> Result<Response<v1::RotateKeysResponse>, Status> {
        self.state.lock().unwrap().rotated.push(request.into_inner());
        found(v1::RotateKeysResponse { keys: 1 })
    }
}
