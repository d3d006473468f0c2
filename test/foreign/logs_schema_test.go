//go:build unix

package foreign

// logSchema is the schema of what the tools for logs say and hear. A Tag is an entry of a map.
const logSchema = `
Timestamp               1 seconds int, 2 nanos int
Tag                     1 key string, 2 value string
LogStreamDescriptor     1 prefix string, 2 name string, 3 stream_type int, 4 content_type string, 5 timestamp Timestamp, 6 tags *Tag, 7 binary_file_ext string
LogEntry                1 time_offset Duration, 2 prefix_index int, 3 stream_index int, 4 sequence int, 10 text Text, 11 binary Binary, 12 datagram Datagram
Text                    1 lines *Line
Line                    1 value bytes, 2 delimiter string
Binary                  2 data bytes
Datagram                1 data bytes, 2 partial Partial
Partial                 1 index int, 2 size int, 3 last bool
ButlerMetadata          1 type int, 2 compression int, 3 proto_version string
ButlerLogBundle         2 timestamp Timestamp, 3 entries *BundleEntry, 4 project string, 5 prefix string, 6 secret bytes
BundleEntry             1 desc LogStreamDescriptor, 3 terminal bool, 4 terminal_index int, 5 logs *LogEntry
RegisterPrefixRequest   1 project string, 2 prefix string, 3 source_info *string, 4 op_nonce bytes, 5 realm string, 10 expiration Duration
RegisterPrefixResponse  1 secret bytes, 2 log_bundle_topic string
PublishRequest          1 topic string, 2 messages *PubsubMessage
PubsubMessage           1 data bytes
PublishResponse         1 message_ids *string
GetTopicRequest         1 topic string
Topic                   1 name string
GetRequest              1 project string, 2 path string, 3 state bool, 4 index int, 5 byte_count int, 6 log_count int, 7 non_contiguous bool
TailRequest             1 project string, 2 path string, 3 state bool
GetResponse             1 project string, 2 state LogStreamState, 3 desc LogStreamDescriptor, 4 logs *LogEntry, 6 realm string
LogStreamState          1 proto_version string, 2 created Timestamp, 3 terminal_index int, 4 archive ArchiveInfo, 5 purged bool
ArchiveInfo             1 index_url string, 2 stream_url string, 3 data_url string, 4 complete bool, 5 log_entry_count int
StreamTypeFilter        1 value int
QueryRequest            1 project string, 2 path string, 3 state bool, 4 proto bool, 5 next string, 6 max_results int, 10 content_type string, 11 stream_type StreamTypeFilter, 15 tags *Tag, 16 purged int
QueryResponse           1 project string, 2 streams *QueryStream, 3 next string, 4 realm string
QueryStream             1 path string, 2 state LogStreamState, 3 desc LogStreamDescriptor, 4 desc_proto bytes
`
