package streamproto

// The environment variables by which a Butler tells the programs that it starts where it is.
const (
	// EnvAddress is the address of the stream server.
	EnvAddress = "LOGDOG_STREAM_SERVER_PATH"
	// EnvProject is the project of the streams.
	EnvProject = "LOGDOG_STREAM_PROJECT"
	// EnvPrefix is the prefix of the streams.
	EnvPrefix = "LOGDOG_STREAM_PREFIX"
	// EnvCoordinatorHost is the host of the pages that show the streams.
	EnvCoordinatorHost = "LOGDOG_COORDINATOR_HOST"
	// EnvNamespace goes before the names of the streams that a program opens.
	EnvNamespace = "LOGDOG_NAMESPACE"
)
