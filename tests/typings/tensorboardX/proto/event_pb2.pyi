"""Types of what protobuf makes of event.proto at run time."""

class SessionLog:
    START: int
    def __init__(self, *, status: int) -> None: ...

class Event:
    def __init__(
        self,
        *,
        wall_time: float,
        step: int,
        summary: object = ...,
        session_log: SessionLog = ...,
    ) -> None: ...
