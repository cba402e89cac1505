"""Our rules for the objects of a cluster, in addition to their schemas."""

import re

import kubernetes
from tree import Tree, last_call_seconds, secret_in

WORKLOADS = {"Deployment", "StatefulSet", "Job"}
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
DATA = "/var/lib/distillery"
CONFIG = "/etc/distillery/distillery.toml"


class Cluster:
    """The objects of one overlay, by kind."""

    def __init__(self, found: list[dict]):
        self.all = found

    def of(self, kind: str) -> list[dict]:
        return [item for item in self.all if item["kind"] == kind]

    def named(self, kind: str, name: str) -> dict | None:
        return next((item for item in self.of(kind) if item["metadata"]["name"] == name), None)

    def workloads(self) -> list[dict]:
        return [item for item in self.all if item["kind"] in WORKLOADS]


def pod(item: dict) -> dict:
    return item["spec"]["template"]["spec"]


def pod_labels(item: dict) -> dict:
    return item["spec"]["template"]["metadata"].get("labels", {})


def container(item: dict) -> dict:
    return pod(item)["containers"][0]


def environment(item: dict) -> dict[str, str]:
    """Variables with a literal value."""
    return {entry["name"]: entry["value"] for entry in container(item).get("env", []) if "value" in entry}


def is_role(item: dict) -> bool:
    return "serve" in container(item).get("args", [])


def selects(selector: dict, labels: dict) -> bool:
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    return all(
        (labels.get(rule["key"]) in rule["values"]) == (rule["operator"] == "In")
        for rule in selector.get("matchExpressions", [])
    )


def check(tree: Tree, place: str, found: list[dict], targets: set[str]) -> None:
    cluster = Cluster(found)
    for item in cluster.workloads():
        where = f"{place}: {kubernetes.name(item)}"
        check_pod(tree, where, item)
        check_images(tree, where, item, targets)
        check_references(tree, where, item, cluster)
        if item["kind"] != "Job" or is_role(item):
            check_probes(tree, where, item)
        if is_role(item):
            check_role(tree, where, item, cluster)
    check_secrecy(tree, place, cluster)
    check_selectors(tree, place, cluster)
    check_scalers(tree, place, cluster)
    check_network(tree, place, cluster)
    for item in found:
        namespace = item["metadata"].get("namespace")
        if namespace != "distillery" and item["kind"] != "Namespace":
            tree.complain(f"{place}: {kubernetes.name(item)}", f"is in the namespace {namespace}")


def check_pod(tree: Tree, where: str, item: dict) -> None:
    """The restricted security standard, and limits."""
    spec = pod(item)
    security = spec.get("securityContext", {})
    if security.get("runAsNonRoot") is not True or not security.get("runAsUser"):
        tree.complain(where, "may run as root")
    if security.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        tree.complain(where, "has no seccomp profile")
    if spec.get("automountServiceAccountToken") is not False:
        tree.complain(where, "is given a token of the cluster")
    if "terminationGracePeriodSeconds" not in spec:
        tree.complain(where, "says nothing of its end (terminationGracePeriodSeconds)")
    for each in spec["containers"] + spec.get("initContainers", []):
        security = each.get("securityContext", {})
        if security.get("allowPrivilegeEscalation") is not False:
            tree.complain(where, "may gain privileges")
        if security.get("readOnlyRootFilesystem") is not True:
            tree.complain(where, "can write to its root")
        if security.get("capabilities", {}).get("drop") != ["ALL"]:
            tree.complain(where, "keeps capabilities")
        resources = each.get("resources", {})
        for part, key in (("requests", "cpu"), ("requests", "memory"), ("limits", "memory")):
            if key not in resources.get(part, {}):
                tree.complain(where, f"has no resources.{part}.{key}")
        if "nvidia.com/gpu" in resources.get("limits", {}):
            tolerated = {toleration.get("key") for toleration in spec.get("tolerations", [])}
            if "nvidia.com/gpu" not in tolerated:
                tree.complain(where, "asks for a GPU, and does not tolerate the taint of nodes that have one")
    for volume in spec.get("volumes", []):
        if "hostPath" in volume:
            tree.complain(where, f"mounts the node's own {volume['hostPath'].get('path')}")
        if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
            tree.complain(where, f"the volume `{volume['name']}` has no limit")


def check_images(tree: Tree, where: str, item: dict, targets: set[str]) -> None:
    for each in pod(item)["containers"]:
        repository, _, tag = each["image"].partition(":")
        if not tag or tag == "latest":
            tree.complain(where, f"the image `{each['image']}` has no version")
        ours = re.fullmatch(r"distillery-([a-z-]+)", repository)
        if ours and ours[1] not in targets:
            tree.complain(where, f"the image `{repository}` is no target of the Dockerfile")
        if ours and tag != tree.version():
            tree.complain(where, f"the image `{each['image']}` is not of this version, {tree.version()}")
        wants_gpu = "nvidia.com/gpu" in each.get("resources", {}).get("limits", {})
        if ours and wants_gpu != ours[1].endswith("-cuda"):
            tree.complain(where, f"`{repository}` and a GPU: one goes with the other")


def check_references(tree: Tree, where: str, item: dict, cluster: Cluster) -> None:
    """Everything that a pod references exists, or is a secret described in deploy/README.md."""
    spec, readme = pod(item), tree.text("deploy/README.md")

    def secret(name: str, keys: list[str]) -> None:
        for word in [name, *keys]:
            if not re.search(rf"\b{re.escape(word)}\b", readme):
                tree.complain(where, f"the secret `{name}`: deploy/README.md does not say how `{word}` is made")

    def config(name: str, keys: list[str]) -> None:
        there = cluster.named("ConfigMap", name)
        for key in keys if there else []:
            if key not in there.get("data", {}):
                tree.complain(where, f"the ConfigMap `{name}` has no `{key}`")
        if not there:
            tree.complain(where, f"there is no ConfigMap `{name}`")

    for volume in spec.get("volumes", []):
        sources = volume["projected"]["sources"] if "projected" in volume else [volume]
        for source in sources:
            if "secret" in source:
                name = source["secret"].get("secretName") or source["secret"].get("name")
                secret(name, [entry["key"] for entry in source["secret"].get("items", [])])
            if "configMap" in source:
                config(source["configMap"]["name"], [])
            if "persistentVolumeClaim" in source:
                name = source["persistentVolumeClaim"]["claimName"]
                if not cluster.named("PersistentVolumeClaim", name):
                    tree.complain(where, f"there is no PersistentVolumeClaim `{name}`")
    for entry in container(item).get("env", []):
        source = entry.get("valueFrom", {})
        if "secretKeyRef" in source:
            secret(source["secretKeyRef"]["name"], [source["secretKeyRef"]["key"]])
        if "configMapKeyRef" in source:
            config(source["configMapKeyRef"]["name"], [source["configMapKeyRef"]["key"]])
    for entry in container(item).get("envFrom", []):
        secret(entry["secretRef"]["name"], [])
    mounted = {mount["name"] for mount in container(item).get("volumeMounts", [])}
    claims = {claim["metadata"]["name"] for claim in item["spec"].get("volumeClaimTemplates", [])}
    for name in mounted ^ ({volume["name"] for volume in spec.get("volumes", [])} | claims):
        tree.complain(where, f"the volume `{name}` is mounted or declared, and not both")
    account = spec.get("serviceAccountName")
    if account and not cluster.named("ServiceAccount", account):
        tree.complain(where, f"there is no ServiceAccount `{account}`")


def check_probes(tree: Tree, where: str, item: dict) -> None:
    for probe in PROBES:
        asked = container(item).get(probe)
        if not asked:
            tree.complain(where, f"has no {probe}")
            continue
        if not is_role(item):
            continue
        listens = environment(item).get("DISTILLERY_ADMIN_LISTEN", "").rpartition(":")[2]
        wanted = "/readyz" if probe == "readinessProbe" else "/healthz"
        http = asked.get("httpGet")
        if not http:
            tree.complain(where, f"{probe} does not ask the admin port, which answers however many callers there are")
        elif str(named_port(item, http["port"])) != listens:
            tree.complain(where, f"{probe} asks port {http['port']}, and the admin port is {listens or 'off'}")
        elif http["path"] != wanted:
            tree.complain(where, f"{probe} asks for `{http['path']}`, and not for {wanted}")


def named_port(item: dict, port: str | int) -> str | int:
    """The number of a container's port."""
    ports = {each.get("name"): each["containerPort"] for each in container(item).get("ports", [])}
    return ports.get(port, port)


def settings(tree: Tree, where: str, item: dict, cluster: Cluster) -> dict | None:
    """The settings of a role in its pod."""
    for mount in container(item).get("volumeMounts", []):
        if mount["mountPath"] == CONFIG:
            volume = next(each for each in pod(item)["volumes"] if each["name"] == mount["name"])
            there = cluster.named("ConfigMap", volume["configMap"]["name"])
            text = (there or {}).get("data", {}).get(mount["subPath"])
            if text is None:
                tree.complain(where, f"mounts `{mount['subPath']}`, which its ConfigMap does not have")
                return None
            return tree.config(where, text, environment(item))
    tree.complain(where, f"has no {CONFIG}")
    return None


def check_role(tree: Tree, where: str, item: dict, cluster: Cluster) -> None:
    spec, variables = pod(item), environment(item)
    if variables.get("DISTILLERY_CONFIG") != CONFIG:
        tree.complain(where, "is given a configuration that it does not read")
    values = settings(tree, where, item, cluster)
    if values:
        role = container(item)["args"][-1]
        needed, given = last_call_seconds(values, role), spec.get("terminationGracePeriodSeconds", 0)
        if given <= needed:
            tree.complain(where, f"terminationGracePeriodSeconds is {given}, and its last call may take {needed} s")
        check_files(tree, where, item, values)
    spreads = {rule["topologyKey"] for rule in spec.get("topologySpreadConstraints", [])}
    if not {"topology.kubernetes.io/zone", "kubernetes.io/hostname"} <= spreads:
        tree.complain(where, "is not spread over zones and nodes")
    for rule in spec.get("topologySpreadConstraints", []):
        if not selects(rule["labelSelector"], pod_labels(item)):
            tree.complain(where, "is spread beside pods that are not its own")
    budgets = [each for each in cluster.of("PodDisruptionBudget") if selects(each["spec"]["selector"], pod_labels(item))]
    if item["kind"] == "Deployment" and len(budgets) != 1:
        tree.complain(where, f"has {len(budgets)} PodDisruptionBudgets")
    if item["metadata"].get("labels", {}).get("distillery/tensors") == "true":
        check_checkpoints(tree, where, item)


def check_files(tree: Tree, where: str, item: dict, values: dict) -> None:
    """Every secret file in the settings is mounted."""
    mounted = set()
    for mount in container(item).get("volumeMounts", []):
        volume = next((each for each in pod(item)["volumes"] if each["name"] == mount["name"]), {})
        for source in volume.get("projected", {}).get("sources", [volume]):
            paths = [entry["path"] for entry in source.get("secret", {}).get("items", [])]
            mounted |= {f"{mount['mountPath']}/{path}" for path in paths}
    named = [token["file"] for token in values["server"]["tokens"].values()]
    named += [values["client"]["token_file"], values["database"]["url_file"], values["redis"]["url_file"]]
    for path in named:
        if path and path not in mounted:
            tree.complain(where, f"its settings name {path}, which is not mounted")


def check_checkpoints(tree: Tree, where: str, item: dict) -> None:
    """Checkpoints are in a volume claim or in a bucket, whose cache has its own volume."""
    root = next((each for each in container(item)["env"] if each["name"] == "DISTILLERY_CHECKPOINTS_ROOT"), None)
    if root is None:
        tree.complain(where, "has no place for checkpoints (DISTILLERY_CHECKPOINTS_ROOT)")
        return
    folder = root.get("value", DATA)
    over = [
        mount
        for mount in container(item)["volumeMounts"]
        if folder == mount["mountPath"] or folder.startswith(mount["mountPath"].rstrip("/") + "/")
    ]
    if not over:
        tree.complain(where, f"nothing is mounted at {folder}")
    for mount in container(item)["volumeMounts"]:
        volume = next((each for each in pod(item)["volumes"] if each["name"] == mount["name"]), {})
        if mount["mountPath"].startswith(DATA) and not ("persistentVolumeClaim" in volume or "ephemeral" in volume):
            tree.complain(where, f"checkpoints at {mount['mountPath']} are on {sorted(volume.keys() - {'name'})}")


def check_secrecy(tree: Tree, place: str, cluster: Cluster) -> None:
    for item in cluster.of("Secret"):
        tree.complain(f"{place}: {kubernetes.name(item)}", "a secret's value lies in the repository")
    for item in cluster.workloads():
        for name, value in environment(item).items():
            if secret_in(name, value):
                tree.complain(f"{place}: {kubernetes.name(item)}", f"{name} is a secret in clear text")
    for item in cluster.of("ConfigMap"):
        for key, text in item.get("data", {}).items():
            if secret_in("", text):
                tree.complain(f"{place}: {kubernetes.name(item)}", f"{key} has a secret in clear text")


def check_selectors(tree: Tree, place: str, cluster: Cluster) -> None:
    """Every selector matches pods."""
    pods = [pod_labels(item) for item in cluster.workloads()]
    for item in cluster.of("Service"):
        if not any(selects({"matchLabels": item["spec"]["selector"]}, labels) for labels in pods):
            tree.complain(f"{place}: {kubernetes.name(item)}", "leads to no pod")
    for item in cluster.of("PodDisruptionBudget"):
        if not any(selects(item["spec"]["selector"], labels) for labels in pods):
            tree.complain(f"{place}: {kubernetes.name(item)}", "covers no pod")
    for item in cluster.of("NetworkPolicy"):
        if not any(selects(item["spec"]["podSelector"], labels) for labels in pods):
            tree.complain(f"{place}: {kubernetes.name(item)}", "covers no pod")


def check_scalers(tree: Tree, place: str, cluster: Cluster) -> None:
    for item in cluster.of("ScaledObject"):
        where = f"{place}: {kubernetes.name(item)}"
        target = cluster.named("Deployment", item["spec"]["scaleTargetRef"]["name"])
        if not target:
            tree.complain(where, f"there is no Deployment `{item['spec']['scaleTargetRef']['name']}`")
        elif "replicas" in target["spec"]:
            tree.complain(where, "the Deployment names its replicas, too: every apply would set them back")
        for trigger in item["spec"]["triggers"]:
            name = trigger.get("authenticationRef", {}).get("name", "")
            access = cluster.named("TriggerAuthentication", name)
            if not access:
                tree.complain(where, f"there is no TriggerAuthentication `{name}`")
            for entry in access["spec"].get("secretTargetRef", []) if access else []:
                for word in (entry["name"], entry["key"]):
                    if not re.search(rf"\b{re.escape(word)}\b", tree.text("deploy/README.md")):
                        tree.complain(where, f"deploy/README.md does not say how the secret `{word}` is made")
    for item in cluster.of("Job"):
        queue = item["metadata"].get("labels", {}).get("kueue.x-k8s.io/queue-name")
        where = f"{place}: {kubernetes.name(item)}"
        if queue and not cluster.named("LocalQueue", queue):
            tree.complain(where, f"there is no LocalQueue `{queue}`")
        if queue and item["spec"].get("suspend") is not True:
            tree.complain(where, "starts without waiting for its queue")
        if queue and environment(item).get("DISTILLERY_TRAINER_IDLE_SECONDS_MAX", "0") == "0":
            tree.complain(where, "never ends: it is given no trainer.idle_seconds_max")


def check_network(tree: Tree, place: str, cluster: Cluster) -> None:
    """Only traffic named by a policy is allowed, and all traffic of the roles is named."""
    rules = cluster.of("NetworkPolicy")
    closed = [
        rule
        for rule in rules
        if rule["spec"]["podSelector"] == {}
        and set(rule["spec"]["policyTypes"]) == {"Ingress", "Egress"}
        and not rule["spec"].get("ingress")
        and not rule["spec"].get("egress")
    ]
    if not closed:
        tree.complain(place, "no NetworkPolicy denies what is not named")

    def opens(item: dict, way: str, port: int) -> bool:
        return any(
            selects(rule["spec"]["podSelector"], pod_labels(item))
            and any(each["port"] == port for part in rule["spec"].get(way, []) for each in part.get("ports", []))
            for rule in rules
        )

    for item in cluster.workloads():
        needs = [("egress", 53)]
        role = item["metadata"]["name"] if is_role(item) else ""
        if pod_labels(item).get("distillery/records"):
            needs += [("egress", 5432)]
        if role.startswith("harvester"):
            needs += [("egress", 6379)]
        if role in ("harvester", "inference"):
            needs += [("ingress", 7070)]
        if role in ("trainer", "inference"):
            needs += [("egress", 7070)]
        if role:
            needs += [("ingress", 9464)]
        for way, port in needs:
            if not opens(item, way, port):
                tree.complain(f"{place}: {kubernetes.name(item)}", f"no NetworkPolicy opens its {way} on port {port}")
