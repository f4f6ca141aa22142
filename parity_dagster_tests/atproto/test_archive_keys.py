"""Keys in DID documents, and signatures: known ones, malleable ones and those of other forms."""

from __future__ import annotations

import base64
import json

import pytest

from parity_dagster.atproto.archive import SigningKey, signing_key
from parity_dagster.errors import MalformedAnswer, NoSigningKey
from parity_dagster.sample_network.signing import PrivateKey
from parity_dagster_tests.atproto.archives import DID

K256, P256 = "EcdsaSecp256k1VerificationKey2019", "EcdsaSecp256r1VerificationKey2019"
MESSAGE = bytes.fromhex("a16568656c6c6f65776f726c64")  # {"hello": "world"}

# of the interoperability tests of AT Protocol (crypto): older type, key as it has it, key as a Multikey, signature
KNOWN = [
    (
        P256,
        "zxdM8dSstjrpZaRUwBmDvjGXweKuEMVN95A9oJBFjkWMh",
        "zDnaembgSGUhZULN2Caob4HLJPaxBh92N7rtH21TErzqf8HQo",
        "2vZNsG3UKvvO/CDlrdvyZRISOFylinBh0Jupc6KcWoJWExHptCfduPleDbG3rko3YZnn9Lw0IjpixVmexJDegg",
        True,
    ),
    (
        K256,
        "z25z9DTpsiYYJKGsWmSPJK2NFN8PcJtZig12K59UgW7q5t",
        "zQ3shqwJEJyMBsBXCWyCBpUBMqxcon9oHB7mCvx4sSpMdLJwc",
        "5WpdIuEUUfVUYaozsi8G0B3cWO09cgZbIIwg1t2YKdUn/FEznOndsz/qgiYb89zwxYCbB71f7yQK5Lr7NasfoA",
        True,
    ),
    (  # the same with the greater s
        P256,
        "zxdM8dSstjrpZaRUwBmDvjGXweKuEMVN95A9oJBFjkWMh",
        "zDnaembgSGUhZULN2Caob4HLJPaxBh92N7rtH21TErzqf8HQo",
        "2vZNsG3UKvvO/CDlrdvyZRISOFylinBh0Jupc6KcWoKp7O4VS9giSAah8k5IUbXIW00SuOrjfEqQ9HEkN9JGzw",
        False,
    ),
    (
        K256,
        "z25z9DTpsiYYJKGsWmSPJK2NFN8PcJtZig12K59UgW7q5t",
        "zQ3shqwJEJyMBsBXCWyCBpUBMqxcon9oHB7mCvx4sSpMdLJwc",
        "5WpdIuEUUfVUYaozsi8G0B3cWO09cgZbIIwg1t2YKdXYA67MYxYiTMAVfdnkDCMN9S5B3vHosRe07aORmoshoQ",
        False,
    ),
    (  # DER instead of r and s
        P256,
        "ze8N2PPxnu19hmBQ58t5P3E9Yj6CqakJmTVCaKvf9Byq2",
        "zDnaeT6hL2RnTdUhAPLij1QBkhYZnmuKyM7puQLW1tkF4Zkt8",
        "MEQCIFxYelWJ9lNcAVt+jK0y/T+DC/X4ohFZ+m8f9SEItkY1AiACX7eXz5sgtaRrz/SdPR8kprnbHMQVde0T2R8yOTBweA",
        False,
    ),
    (
        K256,
        "z22uZXWP8fdHXi4jyx8cCDiBf9qQTsAe6VcycoMQPfcMQX",
        "zQ3shnriYMXc8wvkbJqfNWh5GXn2bVAeqTC92YuNbek4npqGF",
        "MEUCIQCWumUqJqOCqInXF7AzhIRg2MhwRz2rWZcOEsOjPmNItgIgXJH7RnqfYY6M0eg33wU0sFYDlprwdOcpRn78Sz5ePgk",
        False,
    ),
]


def _key(kind: str, text: str, *, name: str = f"{DID}#atproto") -> SigningKey:
    return signing_key(json.dumps({"id": DID, "verificationMethod": [_method(kind, text, name)]}).encode(), DID)


def _method(kind: str, text: str, name: str = f"{DID}#atproto") -> dict[str, str]:
    return {"id": name, "type": kind, "controller": DID, "publicKeyMultibase": text}


@pytest.mark.parametrize(("kind", "older", "multikey", "signature", "is_valid"), KNOWN)
def test_known_signatures(kind, older, multikey, signature, is_valid):
    key = _key("Multikey", multikey)
    assert key == _key(kind, older)
    data = base64.b64decode(signature + "=" * (-len(signature) % 4))
    assert key.is_signature(data, MESSAGE) is is_valid


@pytest.mark.parametrize("curve", ["secp256k1", "p256"])
def test_a_signature_holds_for_its_key_and_message_only(curve):
    private, other = PrivateKey("one", curve), PrivateKey("other", curve)
    key = _key("Multikey", private.multibase, name="#atproto")
    signature = private.sign(MESSAGE)
    assert key.is_signature(signature, MESSAGE)
    assert not key.is_signature(signature, MESSAGE + b"\x00")
    assert not key.is_signature(other.sign(MESSAGE), MESSAGE)
    assert not key.is_signature(private.sign(MESSAGE, high_s=True), MESSAGE)
    r, s = signature[:32], signature[32:]
    # the last one says the same numbers in another way
    for wrong in (
        b"",
        r + s[:-1],
        bytes(64),
        r + bytes(32),
        bytes(32) + s,
        b"\xff" * 64,
        signature + b"\x00",
        r + b"\x00" + s,
    ):
        assert not key.is_signature(wrong, MESSAGE)


GOOD = PrivateKey("one").multibase


@pytest.mark.parametrize(
    "methods",
    [
        [],
        [_method("Multikey", GOOD, f"{DID}#other")],
        [_method("Multikey", GOOD, "did:plc:ewvi7nxzyoun6zhxrhs64oiz#atproto")],
        [_method("Multikey", GOOD[:-1])],
        [_method("Multikey", "f" + GOOD[1:])],
        [_method("Multikey", "z")],
        [_method("Multikey", "")],
        [_method("Multikey", "z" + "1" * 1000)],
        [_method("Multikey", "z0OIl")],
        [_method("Multikey", KNOWN[0][1])],  # an older type's key, which names no curve
        [_method(P256, GOOD)],
        [_method("JsonWebKey2020", GOOD)],
        [_method("Multikey", "z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK")],  # Ed25519
        # the first method of the name counts, as in the reference implementation
        [_method("Multikey", "z"), _method("Multikey", GOOD)],
        ["#atproto", 5, None, {}],
    ],
)
def test_a_document_without_a_usable_key(methods):
    with pytest.raises(NoSigningKey):
        signing_key(json.dumps({"id": DID, "verificationMethod": methods}).encode(), DID)


def test_methods_that_are_none_are_passed_over():
    methods = [7, {"id": 5}, _method("Multikey", PrivateKey("other").multibase, "#other"), _method("Multikey", GOOD)]
    key = signing_key(json.dumps({"id": DID, "verificationMethod": methods}).encode(), DID)
    assert key == _key("Multikey", GOOD)
    assert hash(key) == hash(_key("Multikey", GOOD))
    assert key != _key("Multikey", PrivateKey("other").multibase)


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"{",
        b'{"id":5}',
        b"\xff",
        b'{"id":"did:plc:ewvi7nxzyoun6zhxrhs64oiz"}',
        b'{"id":"%b","verificationMethod":{}}' % DID.encode(),
        b"[" * 100_000,
    ],
)
def test_what_is_no_document_of_the_account(document):
    with pytest.raises(MalformedAnswer):
        signing_key(document, DID)


def test_a_point_that_is_not_on_the_curve():
    # 33 bytes of the right form, but no point has this x
    from parity_dagster.sample_network.signing import base58

    text = "z" + base58(b"\xe7\x01\x02" + b"\xff" * 32)
    with pytest.raises(NoSigningKey):
        _key("Multikey", text)
