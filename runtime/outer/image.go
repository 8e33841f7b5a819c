package outer

import (
	"errors"

	"github.com/locald/locald/internal/oci"
	"github.com/locald/locald/runtime"
)

// ImageFault turns what is said of images into the contract's. full is what helps
// when the disk is.
func ImageFault(err error, full string) error {
	var known *oci.Error
	if !errors.As(err, &known) {
		return err
	}
	f := &runtime.Fault{Code: "image_pull", Hint: known.Hint, Err: known}
	switch known.Kind {
	case oci.InvalidReference:
		f.Code, f.Kind = "config_invalid", runtime.ErrInvalid
	case oci.NotFound, oci.Unauthorized, oci.NoPlatform, oci.Unsupported, oci.Unsafe:
		f.Kind = runtime.ErrInvalid // somebody has to do something first
	case oci.DiskFull:
		f.Code, f.Hint = "disk_full", full
	case oci.Storage:
		f.Code = "internal"
	}
	return f
}
