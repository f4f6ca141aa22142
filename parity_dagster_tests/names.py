"""A DNS server for tests with handles."""

from __future__ import annotations

import contextlib
import socket
import threading

import dns.message
import dns.rcode
import dns.rrset


class Names:
    """A DNS server on loopback that this process asks; it knows the TXT records it is given."""

    def __init__(self) -> None:
        self.records: dict[str, str] = {}
        self._later: dict[str, tuple[int, str]] = {}
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        threading.Thread(target=self._serve, daemon=True).start()

    def after(self, questions: int, name: str, text: str) -> None:
        """Know a record only when it has been asked for so often in vain."""
        self._later[name] = (questions, text)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                wire, sender = self.socket.recvfrom(4096)
                query = dns.message.from_wire(wire)
                name = query.question[0].name
                answer = dns.message.make_response(query)
                asked = name.to_text(omit_final_dot=True)
                if asked in self._later:
                    left, coming = self._later.pop(asked)
                    if left:
                        self._later[asked] = (left - 1, coming)
                    else:
                        self.records[asked] = coming
                if text := self.records.get(asked):
                    answer.answer.append(dns.rrset.from_text(name, 60, "IN", "TXT", f'"{text}"'))
                else:
                    answer.set_rcode(dns.rcode.NXDOMAIN)
                self.socket.sendto(answer.to_wire(), sender)
