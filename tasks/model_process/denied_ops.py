"""The ops that a served graph has no business with: they reach files, the network, the log or the host's Python.

TensorFlow runs whatever a graph holds: the TensorFlow security guide calls a model a program. This is the
one list of what is refused, with the reason shown to the operator; `saved_model_cli scan` knows three of
these. An op that TensorFlow does not know cannot be loaded anyway.
The list was made from all the ops of TensorFlow 2.17, by their names, inputs and attributes: with another
TensorFlow, look again.
"""

from __future__ import annotations

from typing import Final

_READS, _WRITES = "reads files", "writes files"
_PYTHON, _NETWORK, _LOGS = "calls Python code by number", "opens network connections", "writes to the server's log"

# Wherever they stand in a SavedModel, in a branch or a function that nothing calls too.
DENIED: Final[dict[str, str]] = {
    **dict.fromkeys(
        (
            "ReadFile",
            "MatchingFiles",
            "MatchingFilesDataset",
            "ExperimentalMatchingFilesDataset",
            "TextLineDataset",
            "TextLineReader",
            "TextLineReaderV2",
            "TFRecordDataset",
            "TFRecordDatasetV2",
            "TFRecordReader",
            "TFRecordReaderV2",
            "FixedLengthRecordDataset",
            "FixedLengthRecordDatasetV2",
            "FixedLengthRecordReader",
            "FixedLengthRecordReaderV2",
            "WholeFileReader",
            "WholeFileReaderV2",
            "CSVDataset",
            "CSVDatasetV2",
            "ExperimentalCSVDataset",
            "LMDBDataset",
            "LMDBReader",
            "ExperimentalLMDBDataset",
            "LoadDataset",
            "ListSnapshotChunksDataset",
            "SnapshotChunkDataset",
            "SnapshotDatasetReader",
            "SnapshotNestedDatasetReader",
            "LoadAndRemapMatrix",
            "GenerateVocabRemapping",
            "RecordInput",
            "ImmutableConst",
            "Skipgram",
            "DTensorRestoreV2",
        ),
        _READS,
    ),
    **dict.fromkeys(
        (
            "WriteFile",
            "SaveDataset",
            "SaveDatasetV2",
            "CacheDataset",
            "CacheDatasetV2",
            "SnapshotDataset",
            "SnapshotDatasetV2",
            "DatasetToTFRecord",
            "ExperimentalDatasetToTFRecord",
            "DistributedSave",
            "CreateSummaryFileWriter",
            "CreateSummaryDbWriter",
            "SerializeTRTResource",
            "CalibrationStatisticsSaver",
            "DumpTensor",
            # Their debug_urls are files or addresses.
            "DebugIdentity",
            "DebugIdentityV2",
            "DebugIdentityV3",
            "DebugNanCount",
            "DebugNumericSummary",
            "DebugNumericSummaryV2",
        ),
        _WRITES,
    ),
    **dict.fromkeys(("PyFunc", "PyFuncStateless", "EagerPyFunc"), _PYTHON),
    **dict.fromkeys(("Print", "PrintV2"), _LOGS),
    **dict.fromkeys(
        (
            "DataServiceDataset",
            "DataServiceDatasetV2",
            "DataServiceDatasetV3",
            "DataServiceDatasetV4",
            "RegisterDataset",
            "RegisterDatasetV2",
            "RpcCall",
            "RpcClient",
            "RpcServer",
            "RpcServerStart",
            "RpcServerRegister",
        ),
        _NETWORK,
    ),
    **dict.fromkeys(("SqlDataset", "ExperimentalSqlDataset"), "opens databases"),
    "DatasetFromGraph": "runs a graph that is kept as a string",
    "Abort": "ends the process",
    "RemoteCall": "runs functions on other devices",
    "FileSystemSetConfiguration": "changes how files are reached",
}

# They read a file where the attribute names one; empty, or with one of these beginnings, it holds the value itself.
READS_PATH_IN_ATTRIBUTE: Final[dict[str, str]] = {
    "DecodeProtoV2": "descriptor_source",
    "EncodeProto": "descriptor_source",
    "FixedUnigramCandidateSampler": "vocab_file",
}
NO_PATH: Final = (b"local://", b"bytes://")

# Every SavedModel has these in its saver, which gives them the checkpoint's path; elsewhere they take any path.
WRITES_CHECKPOINTS: Final[dict[str, str]] = dict.fromkeys(
    ("Save", "SaveSlices", "SaveV2", "MergeV2Checkpoints"), "writes checkpoints outside of the saver"
)
READS_CHECKPOINTS: Final[dict[str, str]] = dict.fromkeys(
    ("Restore", "RestoreSlice", "RestoreV2"), "reads checkpoints outside of the saver"
)

# Their second input is a path, which may be that of one of the model's own assets and nothing else.
READS_ASSETS: Final[dict[str, str]] = dict.fromkeys(
    ("InitializeTableFromTextFile", "InitializeTableFromTextFileV2", "InitializeTRTResource"),
    "reads a file that is none of the model's assets",
)
