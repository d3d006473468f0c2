package bucket

import "os"

// syncDir does nothing: Windows has no sync of directories, and makes names durable with the files.
func syncDir(*os.Root, string) error { return nil }
