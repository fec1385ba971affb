"""The API of the fake."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import kubernetes_validate
from aiohttp import web

from tests.fake_kubernetes.node import Node
from tests.fake_kubernetes.objects import KINDS, Manifest, Objects, Store
from tests.kubernetes_schemas import check, without_what_prefect_misplaces

LOCALHOST = "127.0.0.1"


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
        self._objects = Objects()
        self._node = Node(self._objects, folder, image, environment)
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

    def received(self, plural: str) -> list[Manifest]:
        """Return all objects of a kind, as they were at each change, those that are gone too."""
        return [manifest for _, _, manifest in self._objects.stores[plural].history]

    def run_out_of_memory(self, pod: str) -> None:
        """Do what a kernel does when a container exceeds its limit."""
        self._node.run_out_of_memory(pod)

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
        await self._node.stop()
        await self._runner.cleanup()

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
        return self._objects.stores[at["plural"]].objects.get((at["namespace"], at["name"]))

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
        made = await self._objects.add(plural, namespace, body)
        if plural == "jobs":
            self._node.spawn(self._node.run_job(made))
        return web.json_response(made, status=201)

    async def _read(self, request: web.Request) -> web.Response:
        found = self._found(request)
        return web.json_response(found) if found else self._refuse(404, "NotFound", request.path)

    async def _log(self, request: web.Request) -> web.Response:
        if request.query.get("previous") == "true" or not self._found(request):
            return self._refuse(404, "NotFound", request.path)
        return web.Response(text=self._node.log_of(request.match_info["name"]))

    async def _list(self, request: web.Request) -> web.StreamResponse:
        store = self._objects.stores.get(request.match_info["plural"])
        if store is None:
            return self._refuse(404, "NotFound", request.path)
        if request.query.get("watch") in ("true", "1", "True"):
            return await self._watch(request, store)
        api, kind = KINDS[request.match_info["plural"]]
        return web.json_response(
            {
                "apiVersion": api,
                "kind": f"{kind}List",
                "metadata": {"resourceVersion": str(self._objects.version)},
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
                async with self._objects.changed:
                    await asyncio.wait_for(self._objects.changed.wait(), None)
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
        pods = self._objects.pods_of(found) if plural == "jobs" else []
        if policy == "Foreground":
            self._node.spawn(self._node.delete_after(plural, found, pods))
        else:
            await self._objects.put(plural, "DELETED", found)
            for pod in pods:
                self._node.spawn(self._node.terminate(pod))
        return web.json_response({"kind": "Status", "apiVersion": "v1", "status": "Success"})

    async def _evict(self, request: web.Request) -> web.Response:
        pod = self._found(request)
        if pod is None:
            return self._refuse(404, "NotFound", request.path)
        self._node.spawn(self._node.terminate(pod))
        return web.json_response(
            {"kind": "Status", "apiVersion": "v1", "status": "Success"}, status=201
        )
