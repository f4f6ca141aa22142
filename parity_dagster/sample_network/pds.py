"""The XRPC methods of a PDS, as the reference implementation answers them or as the behaviour in force says."""

from __future__ import annotations

from collections.abc import Callable

from parity_dagster.sample_network.archive_answer import archive_answer
from parity_dagster.sample_network.behaviour import Behaviour
from parity_dagster.sample_network.content import encode
from parity_dagster.sample_network.directory import did_document
from parity_dagster.sample_network.faults import error
from parity_dagster.sample_network.hosts import Host
from parity_dagster.sample_network.listing import list_repos, made_up_head, read_limit
from parity_dagster.sample_network.network import SampleNetwork
from parity_dagster.sample_network.paging import CursorRefused, PagePoisoned, list_page
from parity_dagster.sample_network.repo import Repo
from parity_dagster.sample_network.scopes import Scope
from parity_dagster.sample_network.wire import Answer

Query = dict[str, str]
_UNAVAILABLE = {
    "takendown": ("RepoTakendown", "Repo has been takendown: {}"),
    "suspended": ("RepoSuspended", "Repo has been suspended: {}"),
    "deactivated": ("RepoDeactivated", "Repo has been deactivated: {}"),
    "deleted": ("RepoNotFound", "Could not find repo for DID: {}"),
}


def _missing(name: str) -> Answer:
    return error(400, "InvalidRequest", f'Params must have the property "{name}"')


def _repo(network: SampleNetwork, host: Host, name: str) -> Repo | None:
    did = name if name.startswith("did:") else network.did_of(name) or ""
    return host.repos.get(did)


def list_records(network: SampleNetwork, host: Host, query: Query, scope: Scope) -> Answer:
    """Answer com.atproto.repo.listRecords."""
    behaviour = scope.behaviour
    for name in ("repo", "collection"):
        if not query.get(name):
            return _missing(name)
    limit = read_limit(query.get("limit", "50"), behaviour, most=100)
    if isinstance(limit, Answer):
        return limit
    repo = _repo(network, host, query["repo"])
    if repo is None or repo.status != "active":
        return _unknown_repo(query["repo"], behaviour)
    pair = (repo.did, query["collection"])
    scope.pages[pair] = number = scope.pages.get(pair, 0) + 1
    try:
        page = list_page(
            repo,
            query["collection"],
            limit=limit,
            cursor=query.get("cursor"),
            reverse=query.get("reverse") == "true",
            behaviour=behaviour,
            number=number,
            shown_as=query["repo"] if behaviour.echo_repo else repo.did,
            kept=network.kept_pages,
        )
    except CursorRefused:
        return error(400, "InvalidRequest", "Malformed cursor")
    except PagePoisoned:
        if behaviour.poison_status == 400:
            return error(400, "InvalidRequest", "Output must be valid")
        return error(500, "InternalServerError", "Internal Server Error")
    cursor = b"" if page.cursor is None else b',"cursor":%b' % encode(page.cursor)
    if behaviour.pretty:
        return Answer(200, b'{\n  "records" : [ %b ]\n %b\r\n}\n' % (page.entries, cursor))
    return Answer(200, b'{"records":[%b]%b}' % (page.entries, cursor))


def _unknown_repo(name: str, behaviour: Behaviour) -> Answer:
    match behaviour.unknown_repo:
        case "empty":
            return Answer(200, b'{"records":[]}')
        case "404":
            return error(404, "RepoNotFound", f"Could not find repo for DID: {name}")
        case "500":
            return error(500, "InternalServerError", "Internal Server Error")
        case "plain":
            return Answer(400, b"repo not found", "text/plain")
    return error(400, "InvalidRequest", f"Could not find repo: {name}")


def get_record(network: SampleNetwork, host: Host, query: Query, scope: Scope) -> Answer:
    """Answer com.atproto.repo.getRecord."""
    for name in ("repo", "collection", "rkey"):
        if not query.get(name):
            return _missing(name)
    uri = f"at://{query['repo']}/{query['collection']}/{query['rkey']}"
    repo = _repo(network, host, query["repo"])
    if repo is None or repo.status != "active":
        return error(400, "InvalidRequest", f"Could not find repo: {query['repo']}")
    held = repo.writable(query["collection"]).get(query["rkey"])
    if held is None or query.get("cid", held.cid) != held.cid:
        return error(400, "RecordNotFound", f"Could not locate record: {uri}")
    if held.rkey in scope.behaviour.poison:
        return error(500, "InternalServerError", "Internal Server Error")
    return Answer(200, held.as_entry(repo.did, query["collection"]))


def describe_repo(network: SampleNetwork, host: Host, query: Query, scope: Scope) -> Answer:
    """Answer com.atproto.repo.describeRepo."""
    repo = _available(network, host, query.get("repo", ""))
    if isinstance(repo, Answer):
        return repo
    account = network.accounts[repo.did]
    listed = scope.behaviour.listed_collections
    return Answer(
        200,
        encode(
            {
                "handle": account.shown_handle,
                "did": repo.did,
                "didDoc": did_document(account),
                "collections": repo.nsids() if listed is None else list(listed),
                "handleIsCorrect": True,
            }
        ),
    )


def _available(network: SampleNetwork, host: Host, name: str) -> Repo | Answer:
    repo = _repo(network, host, name)
    if repo is None:
        return error(400, "RepoNotFound", f"Could not find repo for DID: {name}")
    if repo.status != "active":
        word, message = _UNAVAILABLE[repo.status]
        return error(400, word, message.format(name))
    return repo


def get_repo_status(network: SampleNetwork, host: Host, query: Query, scope: Scope) -> Answer:
    """Answer com.atproto.sync.getRepoStatus."""
    if not scope.behaviour.sync_methods:
        return error(501, "MethodNotImplemented", "Method Not Implemented")
    repo = host.repos.get(query.get("did", ""))
    if repo is None:
        return error(400, "RepoNotFound", f"Could not find repo for DID: {query.get('did', '')}")
    if repo.status == "active":
        return Answer(200, encode({"did": repo.did, "active": True, "rev": repo.rev}))
    return Answer(200, encode({"did": repo.did, "active": False, "status": repo.status}))


def get_latest_commit(network: SampleNetwork, host: Host, query: Query, scope: Scope) -> Answer:
    """Answer com.atproto.sync.getLatestCommit."""
    if not scope.behaviour.sync_methods:
        return error(501, "MethodNotImplemented", "Method Not Implemented")
    repo = _available(network, host, query.get("did", ""))
    if isinstance(repo, Answer):
        return repo
    return Answer(200, encode({"cid": made_up_head(repo), "rev": repo.rev_shifted(scope.behaviour.rev_ahead)}))


def get_repo(network: SampleNetwork, host: Host, query: Query, scope: Scope) -> Answer:
    """Answer com.atproto.sync.getRepo; `since` is ignored, as some servers do."""
    if not scope.behaviour.sync_methods:
        return error(501, "MethodNotImplemented", "Method Not Implemented")
    if not query.get("did"):
        return _missing("did")
    repo = _available(network, host, query["did"])
    if isinstance(repo, Answer):
        return repo
    try:
        return archive_answer(repo, network.accounts[repo.did].key, scope.behaviour, network.kept_pages)
    except ValueError as exc:
        return error(500, "InternalServerError", str(exc))


def describe_server(network: SampleNetwork, host: Host, query: Query, scope: Scope) -> Answer:
    """Answer com.atproto.server.describeServer."""
    body = {"did": "did:web:" + host.name + ".sample.test", "availableUserDomains": [".sample.test"]}
    return Answer(200, encode(body | {"inviteCodeRequired": False, "links": {}, "contact": {}}))


def resolve_handle(network: SampleNetwork, host: Host, query: Query, scope: Scope) -> Answer:
    """Answer com.atproto.identity.resolveHandle."""
    did = network.did_of(query.get("handle", ""))
    return Answer(200, encode({"did": did})) if did else error(400, "HandleNotFound", "Unable to resolve handle")


def health(network: SampleNetwork, host: Host, query: Query, scope: Scope) -> Answer:
    """Answer /xrpc/_health."""
    return Answer(200, b'{"version":"0.4.sample"}')


METHODS: dict[str, Callable[[SampleNetwork, Host, Query, Scope], Answer]] = {
    "com.atproto.repo.listRecords": list_records,
    "com.atproto.repo.getRecord": get_record,
    "com.atproto.repo.describeRepo": describe_repo,
    "com.atproto.sync.getRepoStatus": get_repo_status,
    "com.atproto.sync.getLatestCommit": get_latest_commit,
    "com.atproto.sync.getRepo": get_repo,
    "com.atproto.sync.listRepos": list_repos,
    "com.atproto.server.describeServer": describe_server,
    "com.atproto.identity.resolveHandle": resolve_handle,
    "_health": health,
}
