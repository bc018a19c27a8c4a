use anyhow::{Context, bail};
use prost_types::FileDescriptorSet;
use serde::{Deserialize, Serialize};
use wire::{Message, control};

/// What a method needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Permission {
    /// Nothing: health, which tells nothing else.
    Anybody,
    /// Seeing pipelines, runs, polls, quotas, and quarantine without contents.
    View,
    /// Starting and ending runs, and replaying.
    Operate,
    /// Changing pipelines, and having their connections tried.
    Edit,
    /// Reading and dropping the contents of records.
    Contents,
    /// Tokens and the audit.
    Administer,
}

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Sees.
    Viewer,
    /// Sees and operates.
    Operator,
    /// Sees, operates and edits.
    Editor,
    /// Sees, also the contents of records.
    Privacy,
    /// Everything.
    Admin,
}

impl Role {
    const ALL: [Self; 5] = [Self::Viewer, Self::Operator, Self::Editor, Self::Privacy, Self::Admin];

    /// Name, as it is stored and shown.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Editor => "editor",
            Self::Privacy => "privacy",
            Self::Admin => "admin",
        }
    }

    /// Returns the role of that name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }

    /// Tells whether the role may do what needs `permission`.
    pub(crate) fn may(self, permission: Permission) -> bool {
        use Permission::{Administer, Anybody, Contents, Edit, Operate, View};
        match permission {
            Anybody | View => true,
            Operate => matches!(self, Self::Operator | Self::Editor | Self::Admin),
            Edit => matches!(self, Self::Editor | Self::Admin),
            Contents => matches!(self, Self::Privacy | Self::Admin),
            Administer => self == Self::Admin,
        }
    }

    pub(crate) fn from_wire(role: control::Role) -> Option<Self> {
        match role {
            control::Role::Unspecified => None,
            control::Role::Viewer => Some(Self::Viewer),
            control::Role::Operator => Some(Self::Operator),
            control::Role::Editor => Some(Self::Editor),
            control::Role::Privacy => Some(Self::Privacy),
            control::Role::Admin => Some(Self::Admin),
        }
    }

    pub(crate) fn to_wire(self) -> control::Role {
        match self {
            Self::Viewer => control::Role::Viewer,
            Self::Operator => control::Role::Operator,
            Self::Editor => control::Role::Editor,
            Self::Privacy => control::Role::Privacy,
            Self::Admin => control::Role::Admin,
        }
    }
}

/// What each method needs. A method that is not here cannot be called.
const METHODS: [(&str, Permission); 36] = {
    use Permission::{Administer, Anybody, Contents, Edit, Operate, View};
    [
        ("tributary.control.v1.PipelineService/ApplyPipelines", Edit),
        ("tributary.control.v1.PipelineService/PlanPipelines", Edit),
        ("tributary.control.v1.PipelineService/CheckPipeline", Edit),
        ("tributary.control.v1.PipelineService/DiscoverSource", Edit),
        ("tributary.control.v1.PipelineService/ListPipelines", View),
        ("tributary.control.v1.PipelineService/GetPipeline", View),
        ("tributary.control.v1.PipelineService/DeletePipeline", Edit),
        ("tributary.control.v1.RunService/StartRun", Operate),
        ("tributary.control.v1.RunService/ListRuns", View),
        ("tributary.control.v1.RunService/GetRun", View),
        ("tributary.control.v1.RunService/WatchRun", View),
        ("tributary.control.v1.RunService/CancelRun", Operate),
        ("tributary.control.v1.PollService/ListPolls", View),
        ("tributary.control.v1.QuotaService/ListQuotas", View),
        ("tributary.control.v1.QuotaService/DeleteQuota", Edit),
        ("tributary.control.v1.QuarantineService/ListQuarantine", View),
        ("tributary.control.v1.QuarantineService/GetQuarantined", Contents),
        ("tributary.control.v1.QuarantineService/ReplayQuarantine", Operate),
        ("tributary.control.v1.QuarantineService/DropQuarantine", Contents),
        ("tributary.control.v1.DeliveryService/ListReceivers", View),
        ("tributary.control.v1.DeliveryService/ResendDeliveries", Operate),
        ("tributary.control.v1.DeliveryService/EnableReceiver", Operate),
        ("tributary.control.v1.AccessService/CreateToken", Administer),
        ("tributary.control.v1.AccessService/ListTokens", Administer),
        ("tributary.control.v1.AccessService/RevokeToken", Administer),
        ("tributary.control.v1.AccessService/ListAudit", Administer),
        ("tributary.control.v1.AccessService/VerifyAudit", Administer),
        ("externalscaler.ExternalScaler/IsActive", View),
        ("externalscaler.ExternalScaler/StreamIsActive", View),
        ("externalscaler.ExternalScaler/GetMetricSpec", View),
        ("externalscaler.ExternalScaler/GetMetrics", View),
        ("grpc.health.v1.Health/Check", Anybody),
        ("grpc.health.v1.Health/Watch", Anybody),
        ("grpc.health.v1.Health/List", Anybody),
        ("grpc.reflection.v1.ServerReflection/ServerReflectionInfo", View),
        ("grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", View),
    ]
};

/// Returns what the method of a path such as `/package.Service/Method` needs; `None`: it was not
/// declared.
pub(crate) fn declared(path: &str) -> Option<Permission> {
    let method = path.strip_prefix('/')?;
    METHODS.iter().find(|(name, _)| *name == method).map(|(_, permission)| *permission)
}

/// The package of what an extractor serves, which has its own tokens.
const INGEST: &str = "tributary.ingest.v1";

/// Checks that every method of the contracts was declared.
///
/// # Errors
///
/// Names the first method that was not.
pub(super) fn check_all_methods(descriptors: &[u8]) -> anyhow::Result<()> {
    let set = FileDescriptorSet::decode(descriptors).context("the contracts cannot be read")?;
    for file in set.file.iter().filter(|file| file.package() != INGEST) {
        for service in &file.service {
            for method in &service.method {
                let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                if declared(&path).is_none() {
                    bail!("the method {path} has no declared permission");
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use prost_types::{FileDescriptorProto, MethodDescriptorProto, ServiceDescriptorProto};

    use super::*;

    #[test]
    fn a_method_without_a_permission_keeps_the_service_from_starting() {
        check_all_methods(wire::FILE_DESCRIPTOR_SET).unwrap();
        let method = MethodDescriptorProto { name: Some("New".to_owned()), ..Default::default() };
        let service = ServiceDescriptorProto {
            name: Some("RunService".to_owned()),
            method: vec![method],
            ..Default::default()
        };
        let file = FileDescriptorProto {
            package: Some("tributary.control.v1".to_owned()),
            service: vec![service],
            ..Default::default()
        };
        let set = FileDescriptorSet { file: vec![file] };
        let error = check_all_methods(&set.encode_to_vec()).unwrap_err().to_string();
        assert!(error.contains("RunService/New"), "{error}");
    }

    #[test]
    fn roles_are_found_by_their_names() {
        for role in Role::ALL {
            assert_eq!(Role::named(role.name()), Some(role));
            assert_eq!(Role::from_wire(role.to_wire()), Some(role));
        }
        assert_eq!(Role::named("root"), None);
    }

    #[test]
    fn contents_are_read_by_few() {
        let may = Role::ALL.map(|role| role.may(Permission::Contents));
        assert_eq!(may, [false, false, false, true, true]);
    }
}
