//! Every AWS operation that this program may call: the one list behind error texts, metrics and the IAM policy.

macro_rules! calls {
    ($($service:literal, $prefix:literal: [$($name:ident),* $(,)?];)*) => {
        /// An AWS operation.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(crate) enum Call { $($($name,)*)* }

        impl Call {
            /// All of them.
            pub(crate) const ALL: &[Self] = &[$($(Self::$name,)*)*];

            /// `ssoadmin` or `identitystore`.
            pub(crate) fn service(self) -> &'static str {
                match self { $($(Self::$name => $service,)*)* }
            }

            /// The operation's name in AWS's API.
            pub(crate) fn name(self) -> &'static str {
                match self { $($(Self::$name => stringify!($name),)*)* }
            }

            /// As errors name it: `ssoadmin CreateAccountAssignment`.
            pub(crate) fn label(self) -> &'static str {
                match self { $($(Self::$name => concat!($service, " ", stringify!($name)),)*)* }
            }

            /// The IAM action that allows it: `sso:CreateAccountAssignment`.
            pub(crate) fn iam_action(self) -> &'static str {
                match self { $($(Self::$name => concat!($prefix, ":", stringify!($name)),)*)* }
            }
        }
    };
}

calls! {
    "ssoadmin", "sso": [
        ListInstances,
        ListPermissionSets,
        DescribePermissionSet,
        ListAccountsForProvisionedPermissionSet,
        ListPermissionSetsProvisionedToAccount,
        ListAccountAssignments,
        CreateAccountAssignment,
        DeleteAccountAssignment,
        DescribeAccountAssignmentCreationStatus,
        DescribeAccountAssignmentDeletionStatus,
    ];
    "identitystore", "identitystore": [
        GetUserId,
        DescribeUser,
        ListUsers,
        GetGroupId,
        DescribeGroup,
        ListGroups,
        ListGroupMemberships,
        GetGroupMembershipId,
        CreateGroupMembership,
        DeleteGroupMembership,
    ];
}

impl Call {
    /// What `import` asks, and `iam-policy --import` allows. The first two are asked by nothing else.
    pub(crate) const OF_IMPORT: &[Self] = &[
        Self::ListAccountsForProvisionedPermissionSet,
        Self::ListPermissionSetsProvisionedToAccount,
        Self::ListGroups,
        Self::ListInstances,
        Self::ListPermissionSets,
        Self::DescribePermissionSet,
        Self::ListAccountAssignments,
        Self::GetUserId,
        Self::DescribeUser,
        Self::GetGroupId,
        Self::DescribeGroup,
        Self::ListGroupMemberships,
    ];

    /// Whether it changes anything in AWS.
    pub(crate) fn changes(self) -> bool {
        matches!(
            self,
            Self::CreateAccountAssignment
                | Self::DeleteAccountAssignment
                | Self::CreateGroupMembership
                | Self::DeleteGroupMembership
        )
    }
}
