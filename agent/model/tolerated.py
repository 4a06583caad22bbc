"""Keys of nuclio that have no meaning on a device without containers: accepted, so that a function runs unmodified.

Each is told as an "info" finding, because somebody who sets a memory limit should learn that nobody enforces it.
Where a kind of trigger has a field of that name, the field wins.
"""

from __future__ import annotations

from msgspec import Struct

from agent.model.spec import (
    Build,
    EnvironmentVariable,
    Function,
    FunctionSpec,
    LoggerSink,
    Metadata,
    ResourceLimits,
    Resources,
    SecurityContext,
    TriggerSpec,
)

KUBERNETES = "only Kubernetes uses it"
CONTAINERS = "only containers use it"
NOT_YET = "not supported yet"
UNUSED = "it has no effect"


def _keys(reason: str, names: str) -> dict[str, str]:
    return {name.lower(): reason for name in names.split()}


TOLERATED: dict[type[Struct], dict[str, str]] = {
    Function: _keys(UNUSED, "apiVersion kind status"),
    Metadata: _keys(KUBERNETES, "resourceVersion uid creationTimestamp generation ownerReferences finalizers")
    | _keys(KUBERNETES, "selfLink generateName managedFields"),
    EnvironmentVariable: _keys(KUBERNETES, "valueFrom"),
    FunctionSpec: _keys(
        KUBERNETES,
        """envFrom waitReadinessTimeoutBeforeFailure serviceType serviceAccount affinity nodeSelector nodeName
        tolerations priorityClassName preemptionPolicy preemptionMode deploymentStrategy hostIPC sidecars
        initContainers replicas minReplicas maxReplicas targetCPU scaleToZero autoScaleMetrics
        customScalingMetricSpecs""",
    )
    | _keys(CONTAINERS, "image imageHash runRegistry imagePullSecrets imagePullPolicy volumes devices")
    | _keys(NOT_YET, "version alias publish")
    | _keys(UNUSED, "dealerURI disableSensitiveFieldsMasking avatar eTag"),
    Build: _keys(
        CONTAINERS,
        """directives addedPaths scriptPaths noCache noBaseImagesPull baseImage onbuildImage baseImageRegistry registry
        image flags args builderServiceAccount""",
    )
    | _keys(UNUSED, "tempDir noCleanup mode timestamp buildTimeoutSeconds runtimeAttributes imageName codeEntry"),
    Resources: _keys(KUBERNETES, "requests claims"),
    ResourceLimits: _keys(CONTAINERS, "ephemeral-storage nvidia.com/gpu amd.com/gpu"),
    SecurityContext: _keys(UNUSED, "runAsNonRoot allowPrivilegeEscalation")
    | _keys(
        CONTAINERS,
        """fsGroup fsGroupChangePolicy privileged capabilities readOnlyRootFilesystem procMount seccompProfile
        seLinuxOptions appArmorProfile sysctls windowsOptions""",
    ),
    LoggerSink: _keys(UNUSED, "attributes kind url"),
    TriggerSpec: _keys(KUBERNETES, "ingresses serviceType concurrencyPolicy jobBackoffLimit secret")
    | _keys(CONTAINERS, "disablePortPublishing reduceMemoryUsage")
    | _keys(UNUSED, "paths partitions total_tasks max_task_allocation waitExplicitAckDuringRebalanceTimeout")
    | _keys(UNUSED, "workerAllocationMode"),
}

SILENT = frozenset(["apiversion", "kind", "status"])
"""The envelope every nuclio file has: not worth a line."""

MISSED = frozenset(["valuefrom", "envfrom"])
"""A function that has one of these most likely does not work without: a warning, not a note."""


def tolerated(kind: type[Struct]) -> dict[str, str]:
    """Keys, in lower case, that may stand in a `kind` without being one of its fields, and why they do nothing."""
    found: dict[str, str] = {}
    for base in kind.__mro__:
        found |= TOLERATED.get(base, {})
    return found
