"""What the accounts of the sample network write: values of the five Bluesky collections and of any other."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

from parity_dagster.sample_network.blocks import make_blob_cid

POST = "app.bsky.feed.post"
LIKE = "app.bsky.feed.like"
REPOST = "app.bsky.feed.repost"
FOLLOW = "app.bsky.graph.follow"
PROFILE = "app.bsky.actor.profile"

Value = dict[str, Any]

_OPENINGS = (
    "Finally got the sourdough right.",
    "Reading about the harbour strike of 1926 again",
    "おはようございます。今日は雨ですね",
    "Unpopular opinion: the second album was better.",
    "Die Bahn hatte heute nur 4 Minuten Verspätung 🎉",
    "I moved my whole homelab to a single fanless box",
    "La récolte de tomates est énorme cette année 🍅🍅",
    "Does anybody else keep a paper notebook for bugs?",
    "Nova versão publicada, com correções pequenas.",
    "The herons are back at the canal 🪶",
    "今天的晚霞太好看了",
    "Three hours of debugging, one missing comma.",
)
_CLOSINGS = (
    "More tomorrow.",
    "Photos when I'm home.",
    "What would you have done?",
    "ありがとう",
    "Not sure I'd do it again 🫠",
    "Thread below ⬇️",
    "“Good enough” is a decision too.",
    "",
    "Und jetzt Kaffee ☕",
    "(I checked twice.)",
)
_TAGS = ("gardening", "atproto", "写真", "trains", "booksky", "python")
_NAMES = (
    "Ada",
    "Bashir",
    "Chiyo",
    "Dulce",
    "Emeka",
    "Fatma",
    "Gwen",
    "Håkon",
    "Ines",
    "Jun 🌿",
    "Zoë",
    "李明",
)


def encode(value: Any) -> bytes:
    """Encode a value as the reference PDS sends it: compact JSON, characters unescaped, keys in given order."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def make_value(nsid: str, rng: random.Random, *, did: str, created_at: str) -> Value:
    """Write one record, with `$type` first as the reference PDS has it.

    Args:
        nsid: the collection; one that is not known gets a small generic record.
        did: an account that the record may mention, like, repost, follow or answer.
    """
    return _WRITERS.get(nsid, _generic(nsid))(rng, did, created_at)


def _rkey(rng: random.Random) -> str:
    return "3" + "".join(rng.choices("234567abcdefghijklmnopqrstuvwxyz", k=12))


def _ref(rng: random.Random, did: str, nsid: str = POST) -> Value:
    uri = f"at://{did}/{nsid}/{_rkey(rng)}"
    cid = "bafyrei" + "abcdefgh"[rng.randrange(8)] + "".join(rng.choices("abcdefghijklmnopqrstuvwxyz234567", k=50))
    return {"cid": cid + "aeim"[rng.randrange(4)], "uri": uri}


def _blob(rng: random.Random, mime: str = "image/jpeg") -> Value:
    return {
        "$type": "blob",
        "ref": {"$link": make_blob_cid(rng.randbytes(8))},
        "mimeType": mime,
        "size": rng.randrange(20_000, 976_000),
    }


def _facet(text: str, part: str, feature: Value) -> Value:
    start = len(text[: text.index(part)].encode())
    return {"features": [feature], "index": {"byteEnd": start + len(part.encode()), "byteStart": start}}


def _post(rng: random.Random, did: str, created_at: str) -> Value:
    text = f"{rng.choice(_OPENINGS)} {rng.choice(_CLOSINGS)}".strip()
    value: Value = {"$type": POST, "text": text, "langs": [rng.choice(("en", "de", "ja", "pt", "fr", "zh"))]}
    kind = rng.random()
    if kind < 0.30:
        root = _ref(rng, did)
        value["reply"] = {"root": root, "parent": root if rng.random() < 0.5 else _ref(rng, did)}
    elif kind < 0.42:
        image = {
            "alt": rng.choice(_OPENINGS),
            "image": _blob(rng),
            "aspectRatio": {"width": 2000, "height": 1500},
        }
        value["embed"] = {"$type": "app.bsky.embed.images", "images": [image] * rng.randint(1, 2)}
    elif kind < 0.50:
        link = f"https://example.org/notes/{rng.randrange(10**6)}"
        card = {"uri": link, "title": rng.choice(_OPENINGS), "description": rng.choice(_CLOSINGS)}
        value["embed"] = {"$type": "app.bsky.embed.external", "external": card}
        value["text"] = text = f"{text} {link}"
        value["facets"] = [_facet(text, link, {"$type": "app.bsky.richtext.facet#link", "uri": link})]
    elif kind < 0.56:
        value["embed"] = {"$type": "app.bsky.embed.record", "record": _ref(rng, did)}
    elif kind < 0.64:
        tag = rng.choice(_TAGS)
        value["text"] = text = f"{text} #{tag}"
        value["facets"] = [_facet(text, f"#{tag}", {"$type": "app.bsky.richtext.facet#tag", "tag": tag})]
    elif kind < 0.70:
        value["text"] = text = f"@{(name := 'friend.sample.test')} {text}"
        value["facets"] = [_facet(text, f"@{name}", {"$type": "app.bsky.richtext.facet#mention", "did": did})]
    value["createdAt"] = created_at
    return value


def _like(rng: random.Random, did: str, created_at: str) -> Value:
    return {"$type": LIKE, "subject": _ref(rng, did), "createdAt": created_at}


def _repost(rng: random.Random, did: str, created_at: str) -> Value:
    return {"$type": REPOST, "subject": _ref(rng, did), "createdAt": created_at}


def _follow(_rng: random.Random, did: str, created_at: str) -> Value:
    return {"$type": FOLLOW, "subject": did, "createdAt": created_at}


def _profile(rng: random.Random, _did: str, created_at: str) -> Value:
    return {
        "$type": PROFILE,
        "avatar": _blob(rng),
        "banner": _blob(rng, "image/png"),
        "createdAt": created_at,
        "description": f"{rng.choice(_OPENINGS)}\n{rng.choice(_CLOSINGS)}",
        "displayName": rng.choice(_NAMES),
    }


def _generic(nsid: str) -> Callable[[random.Random, str, str], Value]:
    def write(rng: random.Random, did: str, created_at: str) -> Value:
        return {
            "$type": nsid,
            "title": rng.choice(_OPENINGS),
            "rating": rng.randint(1, 10),
            "about": did,
            "createdAt": created_at,
        }

    return write


_WRITERS: dict[str, Callable[[random.Random, str, str], Value]] = {
    POST: _post,
    LIKE: _like,
    REPOST: _repost,
    FOLLOW: _follow,
    PROFILE: _profile,
}
