"""What the chart renders: valid for Kubernetes, consistent in itself, and equal to the plain manifests; and what its
two scripts do, run with the environment that the manifests give them. Called by kubernetes.sh."""

import copy
import glob
import os
import re
import subprocess
import tempfile
import unittest
import warnings
from pathlib import Path

import kubernetes_validate
import pydantic
import yaml

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # field names of the generated types
    from cloudcoil.models.prometheus_operator import v1 as monitoring

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "cluster/helm/llm-config-manager"
# The oldest that Chart.yaml allows, one in between, and the newest known to the validator.
KUBERNETES = ["1.27", "1.33", "1.37"]
NODE = {
    "app.kubernetes.io/name": "llm-config-manager",
    "app.kubernetes.io/instance": "llm-config-manager",
    "app.kubernetes.io/component": "node",
}
ALL = {"monitoring": {"serviceMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}}}
HOSTS = "llm-config-manager-{}.llm-config-manager-headless.llm-config.svc.cluster.local"
FOUNDING = ",".join(f"{i + 1}={HOSTS.format(i)}:50061" for i in range(3))
# Every optional part of the chart at once.
FULL = {
    **ALL,
    "image": {"repository": "registry.example/llm-config-manager", "digest": "sha256:" + "0" * 64},
    "imagePullSecrets": [{"name": "registry"}],
    "replicas": 5,
    "disks": {"1": 1, "4": 2},
    "config": {"cache-bytes": "256MiB", "log-format": "json"},
    "auth": {"jobTokenSecret": "jobs"},
    "tls": {"secret": "certificate", "clientCertificates": True},
    "raftTls": {"secret": "node-certificates"},
    "secretName": "keys",
    "listenAddress": "[::]",
    "service": {"type": "LoadBalancer", "annotations": {"a": "b"}},
    "storage": {"size": "1Ti", "className": "fast", "annotations": {"a": "b"}},
    "placement": {"antiAffinity": "required", "zoneSpread": "DoNotSchedule", "nodeSelector": {"disk": "ssd"},
                  "tolerations": [{"key": "dedicated", "operator": "Exists"}], "priorityClassName": "high"},
    "podAnnotations": {"a": "b"},
    "podLabels": {"team": "platform"},
    "serviceAccount": {"annotations": {"a": "b"}},
}
OPEN = {"auth": {"enabled": False}, "secrets": {"masterKeySecret": ""}}
RESTORE = {"restore": {"file": "a.backup", "token": "t"}}


def helm(values, *more):
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(values, file)
        file.flush()
        command = [os.environ["HELM"], "template", "llm-config-manager", str(CHART), "--namespace", "llm-config"]
        return subprocess.run([*command, "--values", file.name, *more], capture_output=True, text=True, timeout=60)


def render(values):
    result = helm(values)
    if result.returncode != 0:
        raise AssertionError(result.stderr)
    return [document for document in yaml.safe_load_all(result.stdout) if document]


def one(documents, kind, name=None):
    found = [d for d in documents if d["kind"] == kind and name in (None, d["metadata"]["name"])]
    assert len(found) == 1, f"{kind} {name}: {len(found)} found"
    return found[0]


def invalid(document):
    """Why a document is not what its kind allows; empty when it is valid."""
    problems = []
    if document["apiVersion"] == "monitoring.coreos.com/v1":
        try:
            read = getattr(monitoring, document["kind"]).model_validate(document)
        except pydantic.ValidationError as error:
            return [str(error)]
        # The types pass over fields that they do not know; what is lost on the way there and back was not known.
        again = read.model_dump(mode="json", by_alias=True, exclude_unset=True)
        if again != document:
            problems.append(f"unknown fields: {document} became {again}")
        return problems
    for version in KUBERNETES:
        try:
            kubernetes_validate.validate(copy.deepcopy(document), version, strict=True)
        except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
            problems.append(f"{version}: {error}")
    return problems


def pods(document):
    spec = document.get("spec", {})
    if document["kind"] == "Pod":
        return [(document["metadata"], spec)]
    if document["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    template = spec.get("template") if document["kind"] in ("CronJob", "StatefulSet") else None
    return [(template["metadata"], template["spec"])] if template else []


def covers(selector, labels):
    return all(labels.get(key) == value for key, value in selector.items())


def inconsistent(documents):
    """What no schema sees: names that point at nothing."""
    problems = []
    names = {(d["kind"], d["metadata"]["name"]) for d in documents}
    all_pods = [pod for d in documents for pod in pods(d)]
    for metadata, spec in all_pods:
        volumes = {volume["name"] for volume in spec.get("volumes", [])}
        for d in documents:
            if d["kind"] == "StatefulSet" and d["spec"]["template"]["spec"] is spec:
                volumes |= {claim["metadata"]["name"] for claim in d["spec"]["volumeClaimTemplates"]}
        account = spec.get("serviceAccountName")
        if account and ("ServiceAccount", account) not in names:
            problems.append(f"no service account {account}")
        for volume in spec.get("volumes", []):
            maps = [volume["configMap"]] if "configMap" in volume else []
            maps += [s["configMap"] for s in volume.get("projected", {}).get("sources", [])]
            problems += [f"no config map {m['name']}" for m in maps if ("ConfigMap", m["name"]) not in names]
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            if claim and ("PersistentVolumeClaim", claim) not in names:
                problems.append(f"no claim {claim}")
        for container in spec["containers"] + spec.get("initContainers", []):
            problems += [f"no volume {m['name']}" for m in container.get("volumeMounts", []) if m["name"] not in volumes]
            ports = {port["name"] for port in container.get("ports", [])}
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                if probe in container and container[probe]["httpGet"]["port"] not in ports:
                    problems.append(f"{probe}: no such port")
            paths = [m["mountPath"] + "/" for m in container.get("volumeMounts", []) if m.get("readOnly")]
            problems += [f"{p} is mounted inside a read-only volume" for p in paths for q in paths
                         if p != q and p.startswith(q)]
            mounted = tuple(m["mountPath"] + "/" for m in container.get("volumeMounts", []))
            named = [e["value"] for e in container.get("env", []) if e.get("value", "").startswith("/")]
            if container["name"] == "llm-config-manager":
                named += [v for d in documents if "llm-config.yaml" in d.get("data", {})
                          for v in yaml.safe_load(d["data"]["llm-config.yaml"]).values() if str(v).startswith("/var/run/")]
            problems += [f"{container['name']}: nothing is mounted at {path}" for path in named
                         if not (path + "/").startswith(mounted)]
            security = {**spec.get("securityContext", {}), **container.get("securityContext", {})}
            wanted = {"runAsNonRoot": True, "runAsUser": 10001, "readOnlyRootFilesystem": True,
                      "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
            problems += [f"{container['name']}: {key}" for key, value in wanted.items() if security.get(key) != value]
            if "memory" not in container.get("resources", {}).get("limits", {}):
                problems.append(f"{container['name']}: no memory limit")
    node_ports = {port["name"]: port["containerPort"] for _, spec in all_pods for c in spec["containers"]
                  for port in c.get("ports", [])}
    for d in documents:
        kind, spec = d["kind"], d.get("spec", {})
        selectors = []
        if kind == "Service":
            selectors = [spec["selector"]]
            problems += [f"service port {p['name']}" for p in spec["ports"] if node_ports.get(p["targetPort"]) != p["port"]]
        if kind == "StatefulSet":
            selectors = [spec["selector"]["matchLabels"]]
            if ("Service", spec["serviceName"]) not in names:
                problems.append(f"no service {spec['serviceName']}")
        if kind == "PodDisruptionBudget":
            selectors = [spec["selector"]["matchLabels"]]
        if kind == "NetworkPolicy":
            selectors = [spec["podSelector"]["matchLabels"]]
            named = [p["port"] for rule in spec["ingress"] for p in rule["ports"]]
            problems += [f"policy port {port}" for port in named if port not in node_ports]
        for selector in selectors:
            selected = [m for m, _ in all_pods if covers(selector, m["labels"])]
            if len(selected) != 1:
                problems.append(f"{kind} {d['metadata']['name']} selects {len(selected)} kinds of pods")
        if kind == "ServiceMonitor":
            services = [s for s in documents if s["kind"] == "Service"
                        and covers(spec["selector"]["matchLabels"], s["metadata"]["labels"])]
            exported = {port["name"] for s in services for port in s["spec"]["ports"]}
            if len(services) != 1 or any(e["port"] not in exported for e in spec["endpoints"]):
                problems.append("the monitor must select one service that has its port")
        if d["metadata"].get("namespace", "llm-config") != "llm-config":
            problems.append(f"{kind} is in another namespace")
    return problems


class Manifests(unittest.TestCase):
    def test_every_rendering_is_valid_and_consistent(self):
        cases = {"defaults": {}, "all": ALL, "full": FULL, "restore": {**FULL, "disks": {}, **RESTORE},
                 "maintenance": {"maintenance": True}, "one": {"founders": 1, "replicas": 1},
                 "bare": {"backup": {"enabled": False}, "networkPolicy": {"enabled": False}}, "open": OPEN}
        for name, values in cases.items():
            documents = render(values)
            for document in documents:
                with self.subTest(name, kind=document["kind"]):
                    self.assertEqual(invalid(document), [])
            with self.subTest(name):
                self.assertEqual(inconsistent(documents), [])

    def test_broken_manifests_are_caught(self):
        documents = render(ALL)
        breaks = {
            "a misspelt field": ("StatefulSet", lambda d: d["spec"].update(replica=3)),
            "a wrong type": ("StatefulSet", lambda d: d["spec"].update(replicas="three")),
            "a missing field": ("StatefulSet", lambda d: d["spec"].pop("selector")),
            "a misspelt probe": ("StatefulSet", lambda d: d["spec"]["template"]["spec"]["containers"][0].update(
                livenesProbe={})),
            "a wrong port": ("Service", lambda d: d["spec"]["ports"][0].update(port="http")),
            "an unknown kind": ("PodDisruptionBudget", lambda d: d.update(kind="PodDisruption")),
            "no schedule": ("CronJob", lambda d: d["spec"].pop("schedule")),
            "a misspelt endpoint": ("ServiceMonitor", lambda d: d["spec"]["endpoints"][0].update(intervall="5s")),
            "no selector": ("ServiceMonitor", lambda d: d["spec"].pop("selector")),
            "a misspelt rule": ("PrometheusRule", lambda d: d["spec"]["groups"][0]["rules"][0].update(expression="1")),
            "a rule without expr": ("PrometheusRule", lambda d: d["spec"]["groups"][0]["rules"][0].pop("expr")),
        }
        for name, (kind, damage) in breaks.items():
            with self.subTest(name):
                broken = copy.deepcopy(next(d for d in documents if d["kind"] == kind))
                self.assertEqual(invalid(broken), [])
                damage(broken)
                self.assertNotEqual(invalid(broken), [])

    def test_inconsistent_manifests_are_caught(self):
        container = lambda d: d["spec"]["template"]["spec"]["containers"][0]
        breaks = {
            "no headless service": ("StatefulSet", lambda d: d["spec"].update(serviceName="other")),
            "no such port": ("StatefulSet", lambda d: container(d)["readinessProbe"]["httpGet"].update(port="web")),
            "no such volume": ("StatefulSet", lambda d: container(d)["volumeMounts"].append(
                {"name": "other", "mountPath": "/x"})),
            "a file that is not mounted": ("StatefulSet", lambda d: container(d)["env"].append(
                {"name": "LLM_CONFIG_TOKEN_FILE", "value": "/var/run/secrets/other/token"})),
            "root": ("StatefulSet", lambda d: d["spec"]["template"]["spec"]["securityContext"].update(runAsUser=0)),
            "a selector beside the pods": ("PodDisruptionBudget", lambda d: d["spec"]["selector"]["matchLabels"].update(
                {"app.kubernetes.io/component": "other"})),
            "a port that is not there": ("ServiceMonitor", lambda d: d["spec"]["endpoints"][0].update(port="web")),
        }
        for name, (kind, damage) in breaks.items():
            with self.subTest(name):
                documents = render(ALL)
                self.assertEqual(inconsistent(documents), [])
                damage(next(d for d in documents if d["kind"] == kind))
                self.assertNotEqual(inconsistent(documents), [])

    def test_the_plain_manifests_are_those_of_the_chart(self):
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([ROOT / "cluster/test/kubernetes-render.sh", folder], check=True, timeout=120)
            fresh = {str(p.relative_to(folder)): p.read_text() for p in Path(folder).rglob("*.yaml")}
        kept = ROOT / "cluster/kubernetes"
        kept = {str(p.relative_to(kept)): p.read_text() for p in kept.rglob("*.yaml")}
        self.assertEqual(kept, fresh, "run `make kubernetes-fix`")
        documents = [d for text in kept.values() for d in yaml.safe_load_all(text) if d["kind"] != "Kustomization"]
        for document in documents:
            self.assertEqual(invalid(document), [])
        self.assertEqual(inconsistent(documents), [])

    def test_the_rules_are_those_of_prometheus(self):
        rules = lambda folder: {p.name: p.read_text() for p in (ROOT / folder).glob("*.yml")}
        source = rules("monitoring/prometheus/rules")
        self.assertTrue(source)
        self.assertEqual(rules(CHART / "files/rules"), source, "run `make kubernetes-fix`")
        groups = [g for name in sorted(source) for g in yaml.safe_load(source[name])["groups"]]
        self.assertEqual(one(render(ALL), "PrometheusRule")["spec"]["groups"], groups)
        # The monitor makes the labels that the rules ask for.
        relabelings = one(render(ALL), "ServiceMonitor")["spec"]["endpoints"][0]["relabelings"]
        made = {r["targetLabel"]: r.get("replacement") for r in relabelings}
        self.assertEqual(made["job"], "llm-config-manager")
        self.assertEqual(set(made), {"job", "cluster", "instance"})


class Promises(unittest.TestCase):
    """What an operator relies on, so that a careless edit is seen."""

    def setUp(self):
        self.documents = render({})
        self.set = one(self.documents, "StatefulSet")["spec"]
        self.pod = self.set["template"]["spec"]
        (self.container,) = self.pod["containers"]

    def test_one_node_at_a_time(self):
        self.assertEqual(self.set["podManagementPolicy"], "Parallel")
        self.assertEqual(self.set["updateStrategy"], {"type": "RollingUpdate"})
        self.assertEqual(self.set["persistentVolumeClaimRetentionPolicy"], {"whenDeleted": "Retain", "whenScaled": "Retain"})
        budget = one(self.documents, "PodDisruptionBudget")["spec"]
        self.assertEqual(budget["maxUnavailable"], 1)
        self.assertEqual(self.set["selector"]["matchLabels"], NODE)

    def test_probes(self):
        paths = {p: self.container[p]["httpGet"]["path"] for p in ("startupProbe", "livenessProbe", "readinessProbe")}
        self.assertEqual(paths, {"startupProbe": "/health/live", "livenessProbe": "/health/live",
                                 "readinessProbe": "/health/ready"})
        startup = self.container["startupProbe"]
        self.assertEqual(startup["periodSeconds"] * startup["failureThreshold"], 600)

    def test_nodes_find_each_other_before_they_are_ready(self):
        headless = one(self.documents, "Service", self.set["serviceName"])["spec"]
        self.assertEqual(headless["clusterIP"], "None")
        self.assertIs(headless["publishNotReadyAddresses"], True)

    def test_the_grace_period_covers_what_the_program_allows_itself(self):
        source = "\n".join(Path(p).read_text() for p in glob.glob(str(ROOT / "src/server/**/*.rs"), recursive=True))
        limit = lambda name: int(re.search(rf"const {name}: Duration = Duration::from_secs\((\d+)\)", source)[1])
        needed = limit("DRAIN_TIMEOUT") + limit("REPLICA_STOP_TIMEOUT")
        for delay in (5, 30):
            documents = render({"shutdown": {"delaySeconds": delay}})
            pod = one(documents, "StatefulSet")["spec"]["template"]["spec"]
            self.assertEqual(pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"], ["/bin/sleep", str(delay)])
            self.assertEqual(pod["terminationGracePeriodSeconds"], delay + needed + 10)

    def test_secrets_are_mounted_where_they_are_needed_and_nowhere_else(self):
        def secrets(pod):
            volumes = [v["secret"] for v in pod["volumes"] if "secret" in v]
            return {v["secretName"]: [item["key"] for item in v.get("items", [])] for v in volumes}

        def both(values):
            documents = render(values)
            jobs = [one(documents, "CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"], one(documents, "Pod")["spec"]]
            self.assertEqual(*(secrets({"volumes": [], **job}) for job in jobs))
            return secrets(one(documents, "StatefulSet")["spec"]["template"]["spec"]), secrets(jobs[0])

        token, key = {"llm-config-bootstrap-token": ["token"]}, {"llm-config-master-key": ["master-key"]}
        self.assertEqual(both({}), ({**token, **key}, token))
        self.assertEqual(both(OPEN), ({}, {}))
        certificates = {"certificate": [], "node-certificates": [], "keys": []}
        self.assertEqual(both(FULL), ({**token, **key, **certificates}, {"jobs": ["token"], "certificate": ["ca.crt"]}))

    def test_with_tls_everything_that_asks_a_node_uses_it(self):
        for values, scheme in ({}, "http"), ({"tls": {"secret": "certificate"}}, "https"):
            documents = render(values)
            text = yaml.safe_dump_all(d for d in documents if d["kind"] in ("StatefulSet", "CronJob", "Pod"))
            self.assertEqual({match for match in re.findall(r"\b(https?)://", text)}, {scheme})
            (container,) = one(documents, "StatefulSet")["spec"]["template"]["spec"]["containers"]
            probes = {container[probe]["httpGet"]["scheme"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
            self.assertEqual(probes, {scheme.upper()})

    def test_a_new_disk_restarts_no_other_pod_and_an_option_does(self):
        template = lambda values: one(render(values), "StatefulSet")["spec"]["template"]
        self.assertEqual(template({"disks": {"1": 1}}), template({}))
        self.assertNotEqual(template({"config": {"cache-bytes": "1GiB"}}), template({}))


class Values(unittest.TestCase):
    def test_what_the_user_is_told_after_an_installation(self):
        command = [os.environ["HELM"], "install", "other", str(CHART), "--namespace", "elsewhere", "--dry-run=client"]
        more = ["--set", "replicas=4", "--set", "restore.file=a.backup,restore.token=t", "--set", "disks=null"]
        for extra in (more, ["--set", "replicas=4", "--set", "disks.3=1"]):
            result = subprocess.run([*command, *extra], capture_output=True, text=True, timeout=60)
            self.assertEqual(result.returncode, 0, result.stderr)
            notes = result.stdout.split("NOTES:")[1]
            node_id = 4 if extra is more else 104
            self.assertIn(f"llm-config cluster add --id {node_id} ", notes)
            host = "other-llm-config-manager-3.other-llm-config-manager-headless.elsewhere.svc.cluster.local"
            self.assertIn(f"--raft {host}:50061", notes)
            self.assertEqual(notes.count("-c restore"), 3 if extra is more else 0)

    def test_wrong_values_are_refused_with_their_name(self):
        cases = {
            "replica": ({"replica": 3}, "replica"),
            "founders even": ({"founders": 2}, "founders"),
            "replicas below founders": ({"replicas": 2}, "must not be less than founders"),
            "replicas text": ({"replicas": "3"}, "replicas"),
            "a disk of no pod": ({"disks": {"7": 1}}, "there is no pod 7"),
            "a generation too far": ({"disks": {"1": 100}}, "disks"),
            "an option of the chart": ({"config": {"node-id": "1"}}, "config"),
            "a bare number": ({"config": {"cache-bytes": 268435456}}, "cache-bytes"),
            "a size without unit": ({"storage": {"size": "100"}}, "storage"),
            "restore without token": ({"restore": {"file": "a.backup"}}, "restore.token"),
            "restore with a folder": ({"restore": {"file": "a/b", "token": "x"}}, "restore"),
            "restore with disks": ({**RESTORE, "disks": {"1": 1}}, "disks must be empty"),
            "authentication without a token": ({"auth": {"bootstrapTokenSecret": ""}}, "auth.bootstrapTokenSecret"),
            "client certificates without TLS": ({"tls": {"clientCertificates": True}}, "tls.secret"),
            "an option of another value": ({"config": {"auth": "off"}}, "config"),
            "a schedule": ({"backup": {"schedule": "daily"}}, "schedule"),
            "anti-affinity": ({"placement": {"antiAffinity": "hard"}}, "antiAffinity"),
        }
        for name, (values, says) in cases.items():
            with self.subTest(name):
                result = helm(values)
                self.assertNotEqual(result.returncode, 0)
                self.assertIn(says, result.stderr)


class Scripts(unittest.TestCase):
    """The scripts run as in a pod: their text and their environment come from the manifests."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.data, self.inbox = self.folder / "data", self.folder / "inbox"
        self.data.mkdir()
        self.inbox.mkdir()

    def program(self, text):
        path = self.folder / "program"
        path.write_text("#!/bin/sh\n" + text)
        path.chmod(0o755)
        return str(path)

    def pod(self, ordinal, values=None, init=False):
        documents = render(values or {})
        maps = {d["metadata"]["name"]: d["data"] for d in documents if d["kind"] == "ConfigMap"}
        files = {**maps["llm-config-manager"], **maps["llm-config-manager-disks"]}
        for name, text in files.items():
            (self.folder / name).write_text(text)
        spec = one(documents, "StatefulSet")["spec"]["template"]["spec"]
        container = spec["initContainers" if init else "containers"][0]
        environment = {e["name"]: e.get("value", f"llm-config-manager-{ordinal}") for e in container["env"]}
        if "RAFT_TLS_DIR" in environment:
            environment["RAFT_TLS_DIR"] = str(self.folder)
        command = [str(self.folder / Path(word).name) if word.startswith("/etc/") else word for word in container["command"]]
        return command, {
            "PATH": os.environ["PATH"], **environment, "DISKS_FILE": str(self.folder / "generations"),
            "CONFIG_FILE": str(self.folder / "llm-config.yaml"), "DATA_DIR": str(self.data),
            "RESTORE_INBOX": str(self.inbox), "PROGRAM": self.program('echo "$@"\n')}

    def run_pod(self, ordinal, values=None, init=False, **environment):
        command, defaults = self.pod(ordinal, values, init)
        return subprocess.run(command, env={**defaults, **environment}, capture_output=True, text=True, timeout=60)

    def test_which_node_a_pod_is(self):
        join = "--join http://llm-config-manager.llm-config.svc.cluster.local:8080"
        found = "--initial-cluster " + FOUNDING
        cases = [(0, {}, 1, found), (1, {}, 2, found), (2, {}, 3, found),
                 (3, {"replicas": 5}, 4, join), (4, {"replicas": 5, "disks": {"4": 2}}, 205, join),
                 (1, {"disks": {"1": 1}}, 102, join), (2, {"disks": {"1": 1}}, 3, found),
                 (1, {"disks": {"1": 0}}, 2, found), (0, {"disks": {"0": 99}}, 9901, join)]
        for ordinal, values, node_id, begins in cases:
            with self.subTest(ordinal=ordinal, values=values):
                result = self.run_pod(ordinal, values)
                self.assertEqual(result.returncode, 0, result.stderr)
                host = HOSTS.format(ordinal)
                self.assertEqual(result.stdout.strip(), (
                    f"serve --config {self.folder}/llm-config.yaml --node-id {node_id} --data-dir {self.data}"
                    f" --advertise-http {host}:8080 --advertise-grpc {host}:50051 --advertise-raft {host}:50061 {begins}"))

    def test_a_node_shows_its_own_certificate(self):
        values = {"raftTls": {"secret": "node-certificates"}, "disks": {"1": 1}}
        missing = self.run_pod(1, values)
        self.assertEqual((missing.returncode, missing.stdout), (2, ""))
        self.assertIn("node-102.crt", missing.stderr)
        for name in ("node-102.crt", "node-102.key", "ca.crt"):
            (self.folder / name).write_text("a certificate")
        result = self.run_pod(1, values)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertTrue(result.stdout.strip().endswith(
            f" --raft-tls-cert {self.folder}/node-102.crt --raft-tls-key {self.folder}/node-102.key"
            f" --raft-tls-ca {self.folder}/ca.crt"), result.stdout)

    def test_ids_are_never_shared(self):
        ids = [ordinal + 1 + 100 * generation for ordinal in range(9) for generation in range(100)]
        self.assertEqual(len(set(ids)), len(ids))

    def test_a_pod_that_does_not_know_who_it_is_stops(self):
        cases = [({"POD_NAME": "manager"}, "has no ordinal"), ({"POD_NAME": "manager-x"}, "ordinal"),
                 ({"POD_NAME": "manager-100"}, "ordinal"), ({"FOUNDERS": "three"}, "FOUNDERS"),
                 ({"FOUNDERS": ""}, "FOUNDERS"), ({"DISKS_FILE": "/nonexistent"}, "/nonexistent"),
                 ({"JOIN_URL": ""}, "JOIN_URL")]
        for environment, says in cases:
            with self.subTest(environment):
                result = self.run_pod(0, **environment)
                self.assertEqual(result.returncode, 2, result)
                self.assertIn(says, result.stderr)
                self.assertEqual(result.stdout, "")
        for line in ("0=x", "0=", "0=-1", "0=08", "0=100", "0=1=2"):
            with self.subTest(line):
                (self.folder / "other").write_text(line)
                result = self.run_pod(0, DISKS_FILE=str(self.folder / "other"))
                self.assertEqual((result.returncode, result.stdout), (2, ""), result)

    def test_the_program_takes_the_flags_and_the_file(self):
        server = os.environ["LLM_CONFIG_SERVER"]
        for values, ordinal, node_id in [({}, 1, 2), ({"replicas": 5}, 3, 4), ({"disks": {"1": 1}}, 1, 102),
                                         ({"listenAddress": "[::]", "config": {"cache-bytes": "256MiB"}}, 0, 1),
                                         (OPEN, 0, 1), ({"tls": FULL["tls"]}, 2, 3)]:
            with self.subTest(values):
                result = self.run_pod(ordinal, values, PROGRAM=server, SERVE_ARGS="--print-config")
                self.assertEqual(result.returncode, 0, result.stderr)
                printed = yaml.safe_load(result.stdout)
                self.assertEqual(printed["node-id"], node_id)
                self.assertEqual(printed["advertise-raft"], HOSTS.format(ordinal) + ":50061")
                self.assertEqual(printed["http-addr"], values.get("listenAddress", "0.0.0.0") + ":8080")
                self.assertEqual(bool(printed.get("initial-cluster")), ordinal < 3 and node_id < 100)
                self.assertEqual((printed["auth"] in ("on", True), bool(printed["master-key-file"])), (values != OPEN,) * 2)
                self.assertEqual(bool(printed["tls-cert"]) and bool(printed["tls-client-ca"]), "tls" in values)

    def test_a_restore_waits_for_its_file_and_runs_once(self):
        command, environment = self.pod(1, RESTORE, init=True)
        waiting = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        self.addCleanup(waiting.kill)
        self.assertIn("waiting for", waiting.stdout.readline())
        (self.inbox / "a.backup").write_text("backup")
        out, _ = waiting.communicate(timeout=60)
        self.assertEqual(waiting.returncode, 0)
        self.assertEqual(out.strip(), f"restore {self.inbox}/a.backup --data-dir {self.data} --node-id 2"
                                      f" --initial-cluster {FOUNDING} --cluster-token t")
        self.assertFalse((self.inbox / "a.backup").exists())
        (self.data / "identity").write_text("there is a node here")
        again = self.run_pod(1, RESTORE, init=True)
        self.assertEqual(again.returncode, 0)
        self.assertIn("restored already", again.stdout)

    def test_a_restore_never_passes_an_old_disk_off_as_restored(self):
        (self.data / "identity").write_text("there is a node here")
        (self.inbox / "a.backup").write_text("backup")
        for token in (None, "an earlier restore"):
            if token:
                (self.inbox / "restore-token").write_text(token)
            with self.subTest(token):
                result = self.run_pod(1, RESTORE, init=True)
                self.assertEqual((result.returncode, result.stdout), (3, ""))
                self.assertIn("delete the claim data-llm-config-manager-1", result.stderr)

    def test_a_restore_that_fails_keeps_its_file_and_its_exit_code(self):
        (self.inbox / "a.backup").write_text("cut")
        command, environment = self.pod(0, RESTORE, init=True)
        environment["PROGRAM"] = self.program("exit 3\n")
        self.assertEqual(subprocess.run(command, env=environment, timeout=60).returncode, 3)
        self.assertTrue((self.inbox / "a.backup").exists())
        (self.inbox / "a.backup").unlink()
        late = self.run_pod(0, RESTORE, init=True, RESTORE_WAIT_SECONDS="0")
        self.assertEqual((late.returncode, late.stdout), (2, ""))
        joins = self.run_pod(3, {**RESTORE, "replicas": 5}, init=True)
        self.assertEqual(joins.returncode, 0)
        self.assertIn("no founder", joins.stdout)

    def backup(self, program, keep="2"):
        documents = render({})
        script = self.folder / "backup.sh"
        script.write_text(one(documents, "ConfigMap", "llm-config-manager-backup")["data"]["backup.sh"])
        container = one(documents, "CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
        self.assertEqual(container["command"], ["/bin/sh", "/etc/llm-config/backup.sh"])
        environment = {e["name"]: e["value"] for e in container["env"]}
        environment |= {"PATH": os.environ["PATH"], "BACKUP_DIR": str(self.data), "PROGRAM": self.program(program),
                        "BACKUP_KEEP": keep}
        return subprocess.run(["/bin/sh", script], env=environment, capture_output=True, text=True, timeout=60)

    def names(self):
        return sorted(os.listdir(self.data))

    def test_backups_are_complete_and_the_oldest_go(self):
        writes = 'test "$*" = "--timeout 3600 backup create $5" && echo backup >"$5"\n'
        old = [f"{8300000000 + i}-20260101T00000{i}Z.backup" for i in range(3)]
        for name in [*old, ".llm-config-backup-x", "notes.txt"]:
            (self.data / name).write_text("backup")
        result = self.backup(writes)
        self.assertEqual(result.returncode, 0, result.stderr)
        backups = [name for name in self.names() if name.endswith(".backup")]
        self.assertEqual(backups[1:], old[:1])
        self.assertRegex(backups[0], r"^8\d{9}-\d{8}T\d{6}Z\.backup$")
        self.assertLess(backups[0], old[0], "newest first")
        self.assertEqual([name for name in self.names() if not name.endswith(".backup")], ["notes.txt"])

    def test_a_failed_backup_deletes_no_old_one(self):
        old = [f"{8300000000 + i}-20260101T00000{i}Z.backup" for i in range(3)]
        for name in old:
            (self.data / name).write_text("backup")
        for program in ("exit 1\n", "exit 0\n"):
            with self.subTest(program):
                self.assertNotEqual(self.backup(program).returncode, 0)
                self.assertEqual(self.names(), old)
        self.assertEqual(self.backup("exit 0\n", keep="0").returncode, 2)


if __name__ == "__main__":
    unittest.main(verbosity=1)
