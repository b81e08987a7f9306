"""Graphics memory that ran out, as native code says it: CUDA, ROCm, Vulkan and Metal in torch, llama.cpp, NCCL and TensorFlow.

An exception in Python that says the same is the Python reader's; this one reads what C and C++ print around it.
"""

from collections.abc import Iterator

from agentscope.model import Reading
from agentscope.readers._late import late
from agentscope.readers._mark import Mark, Weight
from agentscope.readers._passage import Passage

KINDS = frozenset({"stderr", "docker", "k8s", "systemd"})

_ERROR = late(
    r"(?:cudaError error: ?(?P<number>\d{1,4}) \((?P<what>[^)\n]{1,80})\)|CUDA error:? ?(?P<number2>\d{1,4})? ?(?:at (?P<file>[^\s:]{1,300}):(?P<line>\d{1,9}))?"
    r": ?(?P<what2>out of memory)|Cuda failure (?P<number3>\d{1,4})? ?'(?P<what3>out of memory)')"
)
_ALLOCATION = late(
    r"(?:cudaMalloc|hipMalloc|cuMem\w{1,24}) ?failed: out of memory|ggml_vulkan: Device memory allocation of size (?P<bytes>\d{1,20}) failed"
    r"|ErrorOutOfDeviceMemory|kIOGPUCommandBufferCallbackErrorOutOfMemory|ran out of memory trying to allocate"
    r"|failed to allocate (?:CUDA|ROCm|Vulkan|Metal)\d{0,3}? ?\w{0,20}buffer|unable to allocate (?:CUDA|ROCm|Vulkan|Metal)\d{0,3} buffer"
)
_FIELDS = late(r"\b(?P<name>file|func|line)=(?P<value>[^\s]{1,300})")


def read(passage: Passage) -> Iterator[Mark]:
    """The first such line, unless work went on after it."""
    words = (
        "out of memory",
        "cudaError",
        "ErrorOutOfDeviceMemory",
        "OutOfMemory",
        "memory allocation",
        "allocate",
        "ran out of memory",
    )
    for index, text in passage.numbered(*words):
        match = _ERROR.search(text)
        if match is None and not _ALLOCATION.search(text):
            continue
        facts: dict[str, object] = {}
        if match is not None:
            fields = match.groupdict()
            what = fields["what"] or fields["what2"] or fields["what3"]
            if "memory" not in what:
                continue
            number = fields["number"] or fields["number2"] or fields["number3"]
            if number:
                facts["cuda_error"] = int(number)
            if fields["file"]:
                facts.update(file=fields["file"], line=int(fields["line"]))
        for at in (index, index + 1):
            if at < len(passage.lines):
                for found in _FIELDS.finditer(passage.lines[at].text[:600]):
                    value = found["value"]
                    facts[found["name"]] = int(value) if found["name"] == "line" and value.isdecimal() else value
        handled = passage.goes_on_after(index)
        yield Mark(
            reading=Reading(
                reader="gpu",
                suggests=None if handled else "oom/gpu",
                says=f"the GPU is out of memory: {text.strip()[:300]}",
                culprit="the memory of the GPU",
                facts={**facts, "killed": False} if handled else facts,
                excerpt=passage.excerpt(index, index + 2),
            ),
            weight=Weight.HARMLESS if handled else Weight.FATAL,
            first=index,
            last=index,
        )
        return
