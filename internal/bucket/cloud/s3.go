package cloud

import (
	"context"
	"errors"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager"
	tmtypes "github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	"gocloud.dev/blob/s3blob"

	"github.com/daybook-dev/daybook/internal/bucket"
	"github.com/daybook-dev/daybook/internal/fault"
)

// S3 describes a bucket of S3, or of a store that speaks its protocol.
type S3 struct {
	Bucket string
	// Profile names a section of the configuration files; empty is the default one.
	Profile string
	// Endpoint is the URL of a compatible store; empty is S3 itself.
	Endpoint string
	// Region is required, also with an endpoint, unless the environment or the profile has one.
	Region string
	// ACL, StorageClass, SSE (server-side encryption) and SSEKMSKeyID (the key for it) apply to what is written; empty
	// leaves each to the bucket.
	ACL, StorageClass, SSE, SSEKMSKeyID string
}

// OpenS3 opens a bucket. It does not reach for it yet.
func OpenS3(ctx context.Context, o S3) (bucket.Bucket, error) {
	load := []func(*config.LoadOptions) error{
		// Compatible stores do not know the checksums that newer SDKs send and want everywhere.
		config.WithRequestChecksumCalculation(aws.RequestChecksumCalculationWhenRequired),
		config.WithResponseChecksumValidation(aws.ResponseChecksumValidationWhenRequired),
	}
	if o.Profile != "" {
		load = append(load, config.WithSharedConfigProfile(o.Profile))
	}
	if o.Region != "" {
		load = append(load, config.WithRegion(o.Region))
	}
	cfg, err := config.LoadDefaultConfig(ctx, load...)
	if err != nil {
		return nil, fault.New(fault.Precondition, "open S3 bucket %s: %w", o.Bucket, err)
	}
	if cfg.Region == "" {
		return nil, fault.New(fault.Precondition, "open S3 bucket %s: no region is configured", o.Bucket)
	}
	client := s3.NewFromConfig(cfg, func(so *s3.Options) {
		if o.Endpoint != "" {
			so.BaseEndpoint = aws.String(o.Endpoint)
			so.UsePathStyle = true
		}
	})
	b, err := s3blob.OpenBucket(ctx, client, o.Bucket, &s3blob.Options{
		EncryptionType: types.ServerSideEncryption(o.SSE), KMSEncryptionID: o.SSEKMSKeyID,
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired,
	})
	if err != nil {
		return nil, fault.New(fault.Precondition, "open S3 bucket %s: %w", o.Bucket, err)
	}
	up := &s3Uploader{S3: o, client: client}
	return &object{blob: b, base: "s3://" + o.Bucket, upload: up.upload, before: o.before, kind: s3Kind, missing: noSuchS3Bucket}, nil
}

func (o S3) before(as func(any) bool) error {
	var in *transfermanager.UploadObjectInput
	if !as(&in) {
		return nil
	}
	if o.ACL != "" {
		in.ACL = tmtypes.ObjectCannedACL(o.ACL)
	}
	if o.StorageClass != "" {
		in.StorageClass = tmtypes.StorageClass(o.StorageClass)
	}
	return nil
}

func noSuchS3Bucket(err error) bool { return s3Code(err) == "NoSuchBucket" }

// s3Kind returns the kind of an error that did not come by way of blob.
func s3Kind(err error) (fault.Kind, bool) {
	switch s3Code(err) {
	case "PreconditionFailed":
		return fault.Exists, true
	case "AccessDenied", "Forbidden":
		return fault.Denied, true
	}
	return 0, false
}

func s3Code(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}
