package main
import (
 _ "github.com/cockroachdb/pebble/v2"
 _ "modernc.org/sqlite"
 _ "google.golang.org/grpc"
 _ "github.com/klauspost/compress/zstd"
 _ "github.com/pressly/goose/v3"
 _ "github.com/prometheus/client_golang/prometheus/promhttp"
 _ "github.com/alecthomas/kong"
 _ "github.com/creack/pty"
 _ "pgregory.net/rapid"
 _ "github.com/google/go-cmp/cmp"
 _ "go.uber.org/goleak"
)
func main(){}
