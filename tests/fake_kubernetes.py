"""A fake of Kubernetes: enough of its API for Prefect's worker, and pods that are processes of this machine.

It is no cluster. Manifests are checked by Kubernetes' own schemas, and who asks by the rules of a Role; nothing
else is enforced: no image is pulled, no root file system is read-only, no network policy holds, no quota or
admission is asked.
A path that the pod mounts, or that the image has, is a folder here; variables that name it are rewritten.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import os
import signal
import sys
import threading
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import kubernetes_validate
from aiohttp import web

from tests.kubernetes_schemas import check, without_what_prefect_misplaces

LOCALHOST = "127.0.0.1"
KINDS = {"jobs": ("batch/v1", "Job"), "pods": ("v1", "Pod"), "secrets": ("v1", "Secret")}
KILLED = 137
Manifest = dict[str, Any]


@dataclass
class Store:
    """Objects of one kind, and all that happened to them, for those who watch."""

    objects: dict[tuple[str, str], Manifest] = field(default_factory=dict)
    history: list[tuple[int, str, Manifest]] = field(default_factory=list)


class FakeKubernetes:
    """The fake. Its API is told by kubeconfigs; what only a node can do are methods.

    Args:
        folder: For volumes and logs of pods.
        image: Folder in every image → what it is here.
        environment: Variables that every image has.
        rules: Of the Role of the user ``worker``; the user ``admin`` may do everything.

    Attributes:
        used: What the worker asked for and was allowed to: verb and resource.
        denied: What it asked for and was not.
    """

    def __init__(
        self,
        folder: Path,
        image: Mapping[str, Path],
        environment: Mapping[str, str],
        rules: Sequence[Manifest],
    ) -> None:
        self._folder = folder
        self._allowed = {
            (verb, resource)
            for rule in rules
            for verb in rule["verbs"]
            for resource in rule["resources"]
        }
        self.used: set[tuple[str, str]] = set()
        self.denied: set[tuple[str, str]] = set()
        self._image = image
        self._environment = environment
        self._stores = {plural: Store() for plural in KINDS}
        self._version = 0
        self._changed = asyncio.Condition()
        self._containers: dict[str, asyncio.subprocess.Process] = {}
        self._out_of_memory: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    # What a test asks for.

    def start(self) -> None:
        """Listen, and write the kubeconfigs."""
        self._thread.start()
        port = self._ask(self._listen())
        for user in ("admin", "worker"):
            config = {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "fake",
                "clusters": [{"name": "fake", "cluster": {"server": f"http://{LOCALHOST}:{port}"}}],
                "users": [{"name": user, "user": {"token": user}}],
                "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": user}}],
            }
            self.kubeconfig(user).write_text(json.dumps(config))

    def kubeconfig(self, user: str) -> Path:
        """Return the file by which a user reaches it."""
        return self._folder / f"{user}.kubeconfig"

    def close(self) -> None:
        """Kill the containers and stop listening."""
        self._ask(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        self._loop.close()

    def run_out_of_memory(self, pod: str) -> None:
        """Do what a kernel does when a container exceeds its limit."""
        self._out_of_memory.add(pod)
        os.killpg(self._containers[pod].pid, signal.SIGKILL)

    def log_of(self, pod: str) -> str:
        """Return what a container wrote, also of a pod that is gone."""
        return (self._folder / pod / "log").read_text(errors="replace")

    # Its own thread.

    def _ask(self, question: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(question, self._loop).result(timeout=30)

    async def _listen(self) -> int:
        app = web.Application(middlewares=[self._authorize])
        app.router.add_get("/version", self._answer({"major": "1", "minor": "37"}))
        app.router.add_get("/api", self._answer({"versions": ["v1"]}))
        batch = {"groupVersion": "batch/v1", "version": "v1"}
        group = {"name": "batch", "versions": [batch], "preferredVersion": batch}
        app.router.add_get("/apis", self._answer({"groups": [group]}))
        for root in ("/api/v1", "/apis/batch/v1"):
            version = root.removeprefix("/api/").removeprefix("/apis/")
            app.router.add_get(root, self._answer(self._resources(version)))
            for scope in ("", "/namespaces/{namespace}"):
                app.router.add_get(f"{root}{scope}/{{plural}}", self._list)
            path = f"{root}/namespaces/{{namespace}}/{{plural}}"
            app.router.add_post(path, self._create)
            app.router.add_get(f"{path}/{{name}}", self._read)
            app.router.add_delete(f"{path}/{{name}}", self._delete)
            app.router.add_get(f"{path}/{{name}}/log", self._log)
            app.router.add_post(f"{path}/{{name}}/eviction", self._evict)
        self._runner = web.AppRunner(app, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, LOCALHOST, 0)
        await site.start()
        return int(self._runner.addresses[0][1])

    async def _stop(self) -> None:
        for container in self._containers.values():
            if container.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(container.pid, signal.SIGKILL)
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._runner.cleanup()

    def _spawn(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # The API.

    @web.middleware
    async def _authorize(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """Let the worker do what its Role allows, in a namespace; discovery is open to all."""
        at = request.match_info
        if request.headers.get("Authorization") == "Bearer worker" and "plural" in at:
            method = request.method.lower()
            verb = {"post": "create"}.get(method, method)
            if method == "get" and "name" not in at:
                verb = "watch" if request.query.get("watch") else "list"
            part = (
                request.path.split("/")[-1] if request.path.endswith(("/log", "/eviction")) else ""
            )
            asked = (verb, f"{at['plural']}/{part}" if part else at["plural"])
            if asked not in self._allowed or "namespace" not in at:
                self.denied.add(asked)
                return self._refuse(403, "Forbidden", f"worker may not {asked}")
            self.used.add(asked)
        answer: web.StreamResponse = await handler(request)
        return answer

    @staticmethod
    def _answer(content: Manifest) -> Any:
        async def answer(_request: web.Request) -> web.Response:
            return web.json_response(content)

        return answer

    @staticmethod
    def _resources(version: str) -> Manifest:
        known = {**KINDS, "namespaces": ("v1", "Namespace"), "events": ("v1", "Event")}
        return {
            "kind": "APIResourceList",
            "groupVersion": version,
            "resources": [
                {
                    "name": plural,
                    "singularName": kind.lower(),
                    "kind": kind,
                    "namespaced": kind != "Namespace",
                    "verbs": ["create", "delete", "get", "list", "watch"],
                }
                for plural, (of, kind) in known.items()
                if of == version
            ],
        }

    @staticmethod
    def _refuse(code: int, reason: str, message: str) -> web.Response:
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure"}
        return web.json_response(
            {**status, "code": code, "reason": reason, "message": message}, status=code
        )

    def _found(self, request: web.Request) -> Manifest | None:
        at = request.match_info
        return self._stores[at["plural"]].objects.get((at["namespace"], at["name"]))

    async def _create(self, request: web.Request) -> web.Response:
        plural, namespace = request.match_info["plural"], request.match_info["namespace"]
        body: Manifest = await request.json()
        if plural not in KINDS:  # events
            return web.json_response(body, status=201)
        if plural == "jobs":
            body = without_what_prefect_misplaces(body)
        try:
            check(body)
        except kubernetes_validate.ValidationError as error:
            return self._refuse(422, "Invalid", str(error))
        made = await self._add(plural, namespace, body)
        if plural == "jobs":
            self._spawn(self._run_job(made))
        return web.json_response(made, status=201)

    async def _read(self, request: web.Request) -> web.Response:
        found = self._found(request)
        return web.json_response(found) if found else self._refuse(404, "NotFound", request.path)

    async def _log(self, request: web.Request) -> web.Response:
        if request.query.get("previous") == "true" or not self._found(request):
            return self._refuse(404, "NotFound", request.path)
        return web.Response(text=self.log_of(request.match_info["name"]))

    async def _list(self, request: web.Request) -> web.StreamResponse:
        store = self._stores.get(request.match_info["plural"])
        if store is None:
            return self._refuse(404, "NotFound", request.path)
        if request.query.get("watch") in ("true", "1", "True"):
            return await self._watch(request, store)
        api, kind = KINDS[request.match_info["plural"]]
        return web.json_response(
            {
                "apiVersion": api,
                "kind": f"{kind}List",
                "metadata": {"resourceVersion": str(self._version)},
                "items": [each for each in store.objects.values() if self._matches(request, each)],
            }
        )

    async def _watch(self, request: web.Request, store: Store) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        seen = int(request.query.get("resourceVersion") or 0)
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            while True:
                new = [event for event in store.history if event[0] > seen]
                for version, kind, changed in new:
                    seen = version
                    if self._matches(request, changed):
                        line = json.dumps({"type": kind, "object": changed}) + "\n"
                        await response.write(line.encode())
                async with self._changed:
                    await asyncio.wait_for(self._changed.wait(), None)
        return response

    @staticmethod
    def _matches(request: web.Request, manifest: Manifest) -> bool:
        metadata = manifest["metadata"]
        if request.match_info.get("namespace") not in (None, metadata["namespace"]):
            return False
        labels = metadata.get("labels", {})
        wanted = [each for each in request.query.get("labelSelector", "").split(",") if each]
        for each in wanted:
            name, _, value = each.partition("=")
            if name not in labels or (value and labels[name] != value.removeprefix("=")):
                return False
        return True

    async def _delete(self, request: web.Request) -> web.Response:
        found = self._found(request)
        if found is None:
            return self._refuse(404, "NotFound", request.path)
        body = await request.json() if request.can_read_body else {}
        policy = request.query.get("propagationPolicy") or body.get("propagationPolicy")
        plural = request.match_info["plural"]
        pods = self._pods_of(found) if plural == "jobs" else []
        if policy == "Foreground":
            self._spawn(self._delete_after(plural, found, pods))
        else:
            await self._remove(plural, found)
            for pod in pods:
                self._spawn(self._terminate(pod))
        return web.json_response({"kind": "Status", "apiVersion": "v1", "status": "Success"})

    async def _evict(self, request: web.Request) -> web.Response:
        pod = self._found(request)
        if pod is None:
            return self._refuse(404, "NotFound", request.path)
        self._spawn(self._terminate(pod))
        return web.json_response(
            {"kind": "Status", "apiVersion": "v1", "status": "Success"}, status=201
        )

    # What is stored.

    async def _add(self, plural: str, namespace: str, body: Manifest) -> Manifest:
        made = copy.deepcopy(body)
        metadata = made.setdefault("metadata", {})
        beginning = metadata.pop("generateName", None)
        metadata.setdefault("name", f"{beginning}{uuid.uuid4().hex[:5]}")
        metadata.update(namespace=namespace, uid=str(uuid.uuid4()), creationTimestamp=self._now())
        await self._put(plural, "ADDED", made)
        return made

    async def _put(self, plural: str, event: str, manifest: Manifest) -> None:
        """Store an object as it is now, and tell those who watch; DELETED takes it away."""
        store, metadata = self._stores[plural], manifest["metadata"]
        self._version += 1
        metadata["resourceVersion"] = str(self._version)
        key = (metadata["namespace"], metadata["name"])
        if event == "DELETED":
            store.objects.pop(key, None)
        elif event == "ADDED" or key in store.objects:
            store.objects[key] = manifest
        else:
            return  # it was deleted meanwhile
        api, kind = KINDS[plural]
        snapshot = copy.deepcopy({"apiVersion": api, "kind": kind, **manifest})
        store.history.append((self._version, event, snapshot))
        async with self._changed:
            self._changed.notify_all()

    async def _remove(self, plural: str, manifest: Manifest) -> None:
        await self._put(plural, "DELETED", manifest)

    def _pods_of(self, job: Manifest) -> list[Manifest]:
        return [
            pod
            for pod in self._stores["pods"].objects.values()
            if pod["metadata"]["labels"].get("job-name") == job["metadata"]["name"]
        ]

    @staticmethod
    def _now() -> str:
        return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    # The controller of jobs.

    async def _run_job(self, job: Manifest) -> None:
        template = job["spec"]["template"]
        name = job["metadata"]["name"]
        pod = await self._add(
            "pods",
            job["metadata"]["namespace"],
            {
                "metadata": {
                    "generateName": f"{name}-",
                    "labels": {**template["metadata"]["labels"], "job-name": name},
                    "annotations": template["metadata"].get("annotations", {}),
                },
                "spec": copy.deepcopy(template["spec"]),
                "status": {"phase": "Pending"},
            },
        )
        job["status"] = {"active": 1, "startTime": self._now()}
        await self._put("jobs", "MODIFIED", job)
        seconds = job["spec"].get("activeDeadlineSeconds")
        running = self._loop.create_task(self._run_pod(pod))
        done, _ = await asyncio.wait({running}, timeout=seconds)
        if not done:
            self._spawn(self._terminate(pod))
            await running
        succeeded = pod["status"]["phase"] == "Succeeded" and bool(done)
        condition = {"type": "Complete" if succeeded else "Failed", "status": "True"}
        if not done:
            condition["reason"] = "DeadlineExceeded"
        elif not succeeded:
            condition["reason"] = "BackoffLimitExceeded"  # the limit is 0
        job["status"] = {
            "startTime": job["status"]["startTime"],
            "succeeded" if succeeded else "failed": 1,
            "conditions": [condition],
        }
        await self._put("jobs", "MODIFIED", job)

    async def _delete_after(self, plural: str, found: Manifest, pods: list[Manifest]) -> None:
        for pod in pods:
            await self._terminate(pod)
        await self._remove(plural, found)

    # The node.

    async def _run_pod(self, pod: Manifest) -> None:
        container = pod["spec"]["containers"][0]
        folder = self._folder / pod["metadata"]["name"]
        places = {**self._image}
        for mount in container.get("volumeMounts", []):
            places[mount["mountPath"]] = folder / mount["name"]
            places[mount["mountPath"]].mkdir(parents=True, exist_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *[sys.executable, "-m", *container["args"]],
                env={
                    **self._environment,
                    **{
                        name: self._located(value, places)
                        for name, value in self._variables(pod, container).items()
                    },
                },
                cwd=places["/app"],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        name = pod["metadata"]["name"]
        self._containers[name] = process
        started = self._now()
        await self._set_status(pod, "Running", {"running": {"startedAt": started}})
        code = await process.wait()
        with contextlib.suppress(ProcessLookupError):  # no process outlives its container
            os.killpg(process.pid, signal.SIGKILL)
        code = 128 - code if code < 0 else code
        reason = "Completed" if code == 0 else "Error"
        if name in self._out_of_memory:
            code, reason = KILLED, "OOMKilled"
        ended = {
            "exitCode": code,
            "reason": reason,
            "startedAt": started,
            "finishedAt": self._now(),
        }
        await self._set_status(pod, "Failed" if code else "Succeeded", {"terminated": ended})

    async def _set_status(self, pod: Manifest, phase: str, state: Manifest) -> None:
        of = pod["spec"]["containers"][0]
        container = {
            **{"name": of["name"], "image": of["image"], "imageID": "", "restartCount": 0},
            **{"ready": "running" in state, "state": state},
        }
        pod["status"] = {"phase": phase, "containerStatuses": [container]}
        await self._put("pods", "MODIFIED", pod)

    async def _terminate(self, pod: Manifest) -> None:
        """Ask process 1 to end, kill all after the grace period, and remove the pod."""
        name = pod["metadata"]["name"]
        process = self._containers.get(name)
        if process and process.returncode is None:
            process.send_signal(signal.SIGTERM)
            grace = pod["spec"].get("terminationGracePeriodSeconds", 30)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), grace)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            while pod["status"]["phase"] == "Running":  # until the node has seen it
                await asyncio.sleep(0.05)
        await self._remove("pods", pod)

    def _variables(self, pod: Manifest, container: Manifest) -> dict[str, str]:
        found: dict[str, str] = {}
        for each in container.get("env", []):
            if "value" in each:
                found[each["name"]] = each["value"]
                continue
            reference = each["valueFrom"]["secretKeyRef"]
            key = (pod["metadata"]["namespace"], reference["name"])
            secret = self._stores["secrets"].objects.get(key, {}).get("stringData", {})
            if reference["key"] in secret:
                found[each["name"]] = secret[reference["key"]]
            elif not reference.get("optional"):
                raise KeyError(reference)
        return found

    @staticmethod
    def _located(value: str, places: Mapping[str, Path]) -> str:
        for path, place in places.items():
            if value == path or value.startswith(f"{path}/"):
                return f"{place}{value.removeprefix(path)}"
        return value
