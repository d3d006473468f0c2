package vfs

// Space is how much room the file system of a directory has for us.
type Space struct {
	// Free is what an ordinary user may still write, Total the size of the file system, in bytes.
	Free, Total int64
}
