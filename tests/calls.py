"""Calls of AWS, each with the role that makes it, what is known of the request, and the verdict that is expected."""

from __future__ import annotations

from infrastructure import ACCOUNT

from gitops.manifests.iam import Verdict

ALLOWED, DENIED, NOT_ALLOWED = Verdict.ALLOWED, Verdict.DENIED, Verdict.NOT_ALLOWED
BUCKET = "arn:aws:s3:::acme-models"
MODEL = f"{BUCKET}/models/wine/2026-01-01-0123456789ab/onnx/model.onnx"
DATA = f"{BUCKET}/dvc/files/md5/00/11"
SERVICE = f"{BUCKET}/services/{64 * 'c'}.tar.gz"
# What S3 tells of a request: put_object with If-None-Match, without it, and a part of an upload.
NEW = {"s3:objectcreationoperation": "true", "s3:if-none-match": "*"}
OVER = {"s3:objectcreationoperation": "true"}
PART = {"s3:objectcreationoperation": "false"}
MODELS, REQUESTS = {"s3:prefix": "models/wine/"}, {"s3:prefix": "requests/prod/wine-api/"}
ZONE = "arn:aws:route53:::hostedzone/<domain-zone>"
BALANCER = f"arn:aws:elasticloadbalancing:eu-central-1:{ACCOUNT}:loadbalancer/app/a/1"
GROUP = f"arn:aws:ec2:eu-central-1:{ACCOUNT}:security-group/sg-1"
INSTANCE = f"arn:aws:ec2:eu-central-1:{ACCOUNT}:instance/i-1"
MARKS = ("aws:resourcetag/elbv2.k8s.aws/cluster", "aws:resourcetag/aws:eks:cluster-name")
OWN, FOREIGN = (dict.fromkeys(MARKS, name) for name in ("acme", "other"))
SECRET = f"arn:aws:secretsmanager:eu-central-1:{ACCOUNT}:secret"
IAM = f"arn:aws:iam::{ACCOUNT}:role"
PLACE = f"eu-central-1:{ACCOUNT}"
ENDPOINT, CONFIG, SERVED, JOB = (
    f"arn:aws:sagemaker:{PLACE}:{kind}/{{}}" for kind in ("endpoint", "endpoint-config", "model", "training-job")
)
OURS, PRODS = "ml-staging-wine-1", "ml-prod-wine-1"
ALARM, LOGS = f"arn:aws:cloudwatch:{PLACE}:alarm:{{}}", f"arn:aws:logs:{PLACE}:log-group:{{}}"
ENDPOINT_LOGS, PRODS_LOGS = (LOGS.format(f"/aws/sagemaker/Endpoints/ml-{name}-wine") for name in ("staging", "prod"))
TRAINING_LOGS = LOGS.format("/aws/sagemaker/TrainingJobs:log-stream:ml-wine-1")
OF_TRAINING = {"cloudwatch:namespace": "/aws/sagemaker/TrainingJobs"}
WATCH = ALARM.format("TargetTracking-endpoint/ml-staging-wine/variant/a")
WINE_IMAGE, OTHER_IMAGE = (f"arn:aws:ecr:{PLACE}:repository/{name}" for name in ("wine-api", "billing"))
TO_SAGEMAKER, TO_EC2, TO_CLOUDFORMATION = (
    {"iam:passedtoservice": f"{service}.amazonaws.com"} for service in ("sagemaker", "ec2", "cloudformation")
)
TARGET = f"arn:aws:application-autoscaling:{PLACE}:scalable-target/0ec5"
OF_ENDPOINTS = {
    "application-autoscaling:service-namespace": "sagemaker",
    "application-autoscaling:scalable-dimension": "sagemaker:variant:DesiredInstanceCount",
}
OF_TABLES = OF_ENDPOINTS | {"application-autoscaling:service-namespace": "dynamodb"}
STACK, PRODS_STACK = (f"arn:aws:cloudformation:{PLACE}:stack/ml-{name}-wine-vm/1" for name in ("staging", "prod"))
AS_MAKER, AS_ADMINISTRATOR = ({"cloudformation:rolearn": f"{IAM}/{name}"} for name in ("ml-staging-stack", "admin"))
MARKED, OF_PROD = (
    {"aws:resourcetag/aws:cloudformation:stack-name": f"ml-{name}-wine-vm"} for name in ("staging", "prod")
)
SCALED, PRODS_SCALED = (
    f"arn:aws:autoscaling:{PLACE}:autoScalingGroup:1:autoScalingGroupName/ml-{name}-wine-vm-Group-1"
    for name in ("staging", "prod")
)
NODES = f"arn:aws:autoscaling:{PLACE}:autoScalingGroup:1:autoScalingGroupName/eks-nodes-1"
OF_ACME, OF_OTHER = ({"aws:resourcetag/eks:cluster-name": name} for name in ("acme", "other"))
WEB_ACL = f"arn:aws:wafv2:{PLACE}:regional/webacl"
BY_TEMPLATE = {"ec2:launchtemplate": f"arn:aws:ec2:{PLACE}:launch-template/lt-1"}
HOST_ZONE = "arn:aws:route53:::hostedzone/Z0123456789ABCDEFGHIJ"
IMAGE = "arn:aws:ssm:eu-central-1::parameter/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"

CALLS = [
    # (role of a template, action, resource, what is known of the request, verdict)
    # Uploads: what upload_model.py and sign_model.py do, and what they never do.
    ("github.ModelWriter", "s3:PutObject", MODEL, NEW, ALLOWED),
    ("github.ModelWriter", "s3:PutObject", MODEL, OVER, DENIED),
    ("github.ModelWriter", "s3:PutObject", MODEL, NEW | {"aws:securetransport": "false"}, DENIED),
    ("github.ModelWriter", "s3:GetObject", MODEL, {}, ALLOWED),
    ("github.ModelWriter", "s3:ListBucket", BUCKET, MODELS, ALLOWED),
    ("github.ModelWriter", "s3:ListBucket", BUCKET, {}, NOT_ALLOWED),
    ("github.ModelWriter", "s3:PutObject", f"{BUCKET}/requests/prod/x", NEW, NOT_ALLOWED),
    ("github.ModelWriter", "s3:PutObject", DATA, OVER, NOT_ALLOWED),
    ("github.ModelWriter", "s3:PutObject", "arn:aws:s3:::other/models/x", NEW, NOT_ALLOWED),
    ("github.ModelWriter", "s3:DeleteObject", MODEL, {}, DENIED),
    ("github.ModelWriter", "s3:DeleteObjectVersion", MODEL, {}, DENIED),
    ("github.ModelWriter", "s3:PutBucketPolicy", BUCKET, {}, NOT_ALLOWED),
    ("github.ModelWriter", "iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/any", {}, NOT_ALLOWED),
    # Copying: replicate_models.py; what is there already, the replica's own policy keeps.
    ("github.ModelReplicator", "s3:GetObject", MODEL, {}, ALLOWED),
    ("github.ModelReplicator", "s3:ListBucket", BUCKET, MODELS, ALLOWED),
    ("github.ModelReplicator", "s3:ListBucket", f"{BUCKET}-ap", MODELS, ALLOWED),
    ("github.ModelReplicator", "s3:GetObject", MODEL.replace(BUCKET, f"{BUCKET}-us"), {}, ALLOWED),
    ("github.ModelReplicator", "s3:PutObject", MODEL.replace(BUCKET, f"{BUCKET}-us"), NEW, ALLOWED),
    ("github.ModelReplicator", "s3:PutObject", MODEL.replace(BUCKET, f"{BUCKET}-ap"), NEW, ALLOWED),
    ("github.ModelReplicator", "s3:PutObject", MODEL, NEW, NOT_ALLOWED),
    ("github.ModelReplicator", "s3:PutObject", f"{BUCKET}-us/requests/prod/x", NEW, NOT_ALLOWED),
    ("github.ModelReplicator", "s3:DeleteObject", MODEL.replace(BUCKET, f"{BUCKET}-us"), {}, NOT_ALLOWED),
    # Comparing: lifecycle compare.
    ("github.ModelReader", "s3:GetObject", MODEL, {}, ALLOWED),
    ("github.ModelReader", "s3:ListBucket", BUCKET, MODELS, ALLOWED),
    ("github.ModelReader", "s3:PutObject", MODEL, NEW, NOT_ALLOWED),
    ("github.ModelReader", "s3:GetObject", f"{BUCKET}/requests/prod/x", {}, NOT_ALLOWED),
    ("github.ModelReader", "s3:ListBucket", BUCKET, REQUESTS, NOT_ALLOWED),
    ("github.ModelReader", "s3:GetObject", MODEL, {"aws:securetransport": "false"}, DENIED),
    # Monitoring: check_drift.py, check_retrain.py.
    ("github.Monitor", "s3:GetObject", f"{BUCKET}/requests/prod/wine-api/x.jsonl", {}, ALLOWED),
    ("github.Monitor", "s3:GetObject", MODEL, {}, ALLOWED),
    ("github.Monitor", "s3:ListBucket", BUCKET, REQUESTS, ALLOWED),
    ("github.Monitor", "s3:ListBucket", BUCKET, MODELS, ALLOWED),
    ("github.Monitor", "s3:ListBucket", BUCKET, {"s3:prefix": "batch/prod/"}, NOT_ALLOWED),
    ("github.Monitor", "s3:GetObject", DATA, {}, NOT_ALLOWED),
    ("github.Monitor", "s3:PutObject", f"{BUCKET}/requests/prod/x", NEW, NOT_ALLOWED),
    # Pruning: prune_versions.py; the bytes stay, and come back.
    ("github.ModelPrune", "s3:DeleteObject", MODEL, {}, ALLOWED),
    ("github.ModelPrune", "s3:GetObject", MODEL, {}, ALLOWED),
    ("github.ModelPrune", "s3:PutObject", MODEL, NEW, ALLOWED),
    ("github.ModelPrune", "s3:PutObject", MODEL, OVER, DENIED),
    ("github.ModelPrune", "s3:ListBucket", BUCKET, MODELS, ALLOWED),
    ("github.ModelPrune", "s3:DeleteObject", MODEL.replace(BUCKET, f"{BUCKET}-us"), {}, ALLOWED),
    ("github.ModelPrune", "s3:ListBucket", f"{BUCKET}-ap", MODELS, ALLOWED),
    ("github.ModelPrune", "s3:DeleteObject", "arn:aws:s3:::other/models/x", {}, NOT_ALLOWED),
    ("github.ModelPrune", "s3:DeleteObjectVersion", MODEL, {}, DENIED),
    ("github.ModelPrune", "s3:BypassGovernanceRetention", MODEL, {}, DENIED),
    ("github.ModelPrune", "s3:DeleteObject", f"{BUCKET}/requests/prod/x", {}, NOT_ALLOWED),
    ("github.ModelPrune", "s3:DeleteObject", DATA, {}, NOT_ALLOWED),
    # Services of an environment.
    ("reader.Reader", "s3:GetObject", MODEL, {}, ALLOWED),
    ("reader.Reader", "s3:PutObject", f"{BUCKET}/requests/dev/x", NEW, ALLOWED),
    ("reader.Reader", "s3:PutObject", f"{BUCKET}/requests/prod/x", NEW, NOT_ALLOWED),
    ("reader.Reader", "s3:GetObject", f"{BUCKET}/requests/dev/x", {}, NOT_ALLOWED),
    ("reader.Reader", "s3:PutObject", MODEL, NEW, NOT_ALLOWED),
    ("reader.Reader", "s3:ListBucket", BUCKET, MODELS, NOT_ALLOWED),
    ("reader.Reader", "s3:DeleteObject", MODEL, {}, DENIED),
    # Batches.
    ("batch.Batch", "s3:GetObject", MODEL, {}, ALLOWED),
    ("batch.Batch", "s3:GetObject", f"{BUCKET}/batch/dev/in/a.csv", {}, ALLOWED),
    ("batch.Batch", "s3:ListBucket", BUCKET, {"s3:prefix": "batch/dev/in/"}, ALLOWED),
    ("batch.Batch", "s3:ListBucket", BUCKET, {"s3:prefix": "batch/dev/out/v/"}, ALLOWED),
    ("batch.Batch", "s3:PutObject", f"{BUCKET}/batch/dev/out/v/a.csv", NEW, ALLOWED),
    ("batch.Batch", "s3:PutObject", f"{BUCKET}/batch/dev/out/v/a.csv", PART, ALLOWED),
    ("batch.Batch", "s3:AbortMultipartUpload", f"{BUCKET}/batch/dev/out/v/a.csv", {}, ALLOWED),
    ("batch.Batch", "s3:GetObject", f"{BUCKET}/batch/dev/out/v/a.csv", {}, ALLOWED),
    ("batch.Batch", "s3:PutObject", f"{BUCKET}/requests/dev/x", NEW, ALLOWED),
    ("batch.Batch", "s3:PutObject", f"{BUCKET}/batch/dev/in/a.csv", NEW, NOT_ALLOWED),
    ("batch.Batch", "s3:GetObject", f"{BUCKET}/batch/prod/in/a.csv", {}, NOT_ALLOWED),
    ("batch.Batch", "s3:ListBucket", BUCKET, {"s3:prefix": "batch/prod/in/"}, NOT_ALLOWED),
    ("batch.Batch", "s3:DeleteObject", f"{BUCKET}/batch/dev/out/v/a.csv", {}, NOT_ALLOWED),
    # Add-ons.
    ("addons.ExternalDns", "route53:ChangeResourceRecordSets", ZONE, {}, ALLOWED),
    ("addons.ExternalDns", "route53:ListResourceRecordSets", ZONE, {}, ALLOWED),
    ("addons.ExternalDns", "route53:ListTagsForResources", ZONE, {}, ALLOWED),
    ("addons.ExternalDns", "route53:ListHostedZones", "*", {}, ALLOWED),
    ("addons.ExternalDns", "route53:ChangeResourceRecordSets", "arn:aws:route53:::hostedzone/Z1", {}, NOT_ALLOWED),
    ("addons.ExternalDns", "route53:DeleteHostedZone", ZONE, {}, NOT_ALLOWED),
    ("addons.ExternalSecrets", "secretsmanager:GetSecretValue", f"{SECRET}:ml-dev-x", {}, ALLOWED),
    ("addons.ExternalSecrets", "secretsmanager:DescribeSecret", f"{SECRET}:ml-dev-x", {}, ALLOWED),
    ("addons.ExternalSecrets", "secretsmanager:GetSecretValue", f"{SECRET}:billing", {}, NOT_ALLOWED),
    ("addons.ExternalSecrets", "secretsmanager:PutSecretValue", f"{SECRET}:ml-dev-x", {}, NOT_ALLOWED),
    ("addons.LoadBalancers", "elasticloadbalancing:DeleteLoadBalancer", BALANCER, OWN, ALLOWED),
    ("addons.LoadBalancers", "elasticloadbalancing:DeleteLoadBalancer", BALANCER, FOREIGN, NOT_ALLOWED),
    ("addons.LoadBalancers", "elasticloadbalancing:DeleteLoadBalancer", BALANCER, {}, NOT_ALLOWED),
    ("addons.LoadBalancers", "ec2:AuthorizeSecurityGroupIngress", GROUP, OWN, ALLOWED),
    ("addons.LoadBalancers", "ec2:AuthorizeSecurityGroupIngress", GROUP, FOREIGN, NOT_ALLOWED),
    ("addons.LoadBalancers", "ec2:DeleteSecurityGroup", GROUP, {}, NOT_ALLOWED),
    ("addons.LoadBalancers", "ec2:TerminateInstances", INSTANCE, OWN, NOT_ALLOWED),
    ("addons.LoadBalancers", "iam:CreateServiceLinkedRole", "*", {}, NOT_ALLOWED),
    ("addons.LoadBalancers", "wafv2:AssociateWebACL", f"{WEB_ACL}/acme-web/1", {}, ALLOWED),
    ("addons.LoadBalancers", "wafv2:AssociateWebACL", f"{WEB_ACL}/other-web/1", {}, NOT_ALLOWED),
    ("addons.LoadBalancers", "wafv2:UpdateWebACL", f"{WEB_ACL}/acme-web/1", {}, NOT_ALLOWED),
    # Endpoints of SageMaker: what they run as.
    ("sagemaker.Execution", "s3:GetObject", MODEL, {}, ALLOWED),
    ("sagemaker.Execution", "s3:PutObject", f"{BUCKET}/requests/staging/captured/x", NEW, ALLOWED),
    ("sagemaker.Execution", "ecr:GetAuthorizationToken", "*", {}, ALLOWED),
    ("sagemaker.Execution", "ecr:BatchCheckLayerAvailability", WINE_IMAGE, {}, ALLOWED),
    ("sagemaker.Execution", "ecr:BatchGetImage", WINE_IMAGE, {}, ALLOWED),
    ("sagemaker.Execution", "ecr:GetDownloadUrlForLayer", WINE_IMAGE, {}, ALLOWED),
    ("sagemaker.Execution", "logs:CreateLogGroup", ENDPOINT_LOGS, {}, ALLOWED),
    ("sagemaker.Execution", "logs:CreateLogStream", ENDPOINT_LOGS, {}, ALLOWED),
    ("sagemaker.Execution", "logs:DescribeLogStreams", ENDPOINT_LOGS, {}, ALLOWED),
    ("sagemaker.Execution", "logs:PutLogEvents", ENDPOINT_LOGS, {}, ALLOWED),
    ("sagemaker.Execution", "cloudwatch:PutMetricData", "*", {"cloudwatch:namespace": "AWS/SageMaker"}, ALLOWED),
    ("sagemaker.Execution", "cloudwatch:DescribeAlarms", ALARM.format("ml-staging-wine-errors"), {}, ALLOWED),
    ("sagemaker.Execution", "cloudwatch:PutMetricData", "*", {"cloudwatch:namespace": "AWS/EC2"}, NOT_ALLOWED),
    ("sagemaker.Execution", "cloudwatch:PutMetricData", "*", {}, NOT_ALLOWED),
    ("sagemaker.Execution", "s3:PutObject", f"{BUCKET}/requests/prod/captured/x", NEW, NOT_ALLOWED),
    ("sagemaker.Execution", "s3:PutObject", MODEL, NEW, NOT_ALLOWED),
    ("sagemaker.Execution", "s3:DeleteObject", MODEL, {}, DENIED),
    ("sagemaker.Execution", "s3:GetObject", f"{BUCKET}/requests/staging/x", {}, NOT_ALLOWED),
    ("sagemaker.Execution", "ecr:BatchGetImage", OTHER_IMAGE, {}, NOT_ALLOWED),
    ("sagemaker.Execution", "logs:PutLogEvents", PRODS_LOGS, {}, NOT_ALLOWED),
    ("sagemaker.Execution", "cloudwatch:DescribeAlarms", ALARM.format("ml-prod-wine-errors"), {}, NOT_ALLOWED),
    ("sagemaker.Execution", "sagemaker:DeleteEndpoint", ENDPOINT.format(OURS), {}, NOT_ALLOWED),
    # deploy_sagemaker.py, by the workflow of one environment, and ACK, for all of a cluster.
    ("sagemaker.Deployer", "sagemaker:CreateEndpoint", ENDPOINT.format(OURS), {}, ALLOWED),
    ("sagemaker.Deployer", "sagemaker:DeleteEndpoint", ENDPOINT.format(OURS), {}, ALLOWED),
    ("sagemaker.Deployer", "sagemaker:DescribeEndpoint", ENDPOINT.format(OURS), {}, ALLOWED),
    ("sagemaker.Deployer", "sagemaker:UpdateEndpoint", ENDPOINT.format(OURS), {}, ALLOWED),
    ("sagemaker.Deployer", "sagemaker:AddTags", ENDPOINT.format(OURS), {}, ALLOWED),
    ("sagemaker.Deployer", "sagemaker:ListTags", ENDPOINT.format(OURS), {}, ALLOWED),
    ("sagemaker.Deployer", "sagemaker:CreateEndpointConfig", CONFIG.format(OURS), {}, ALLOWED),
    ("sagemaker.Deployer", "sagemaker:DeleteEndpointConfig", CONFIG.format(OURS), {}, ALLOWED),
    ("sagemaker.Deployer", "sagemaker:DescribeEndpointConfig", CONFIG.format(OURS), {}, ALLOWED),
    ("sagemaker.Deployer", "sagemaker:CreateModel", SERVED.format(OURS), {}, ALLOWED),
    ("sagemaker.Deployer", "sagemaker:DeleteModel", SERVED.format(OURS), {}, ALLOWED),
    ("sagemaker.Deployer", "sagemaker:DescribeModel", SERVED.format(OURS), {}, ALLOWED),
    ("sagemaker.Deployer", "iam:PassRole", f"{IAM}/ml-staging-sagemaker", TO_SAGEMAKER, ALLOWED),
    ("sagemaker.Deployer", "iam:PassRole", f"{IAM}/ml-staging-sagemaker", TO_EC2, NOT_ALLOWED),
    ("sagemaker.Deployer", "iam:PassRole", f"{IAM}/ml-prod-sagemaker", TO_SAGEMAKER, NOT_ALLOWED),
    ("sagemaker.Deployer", "iam:PassRole", f"{IAM}/ml-staging-stack", TO_SAGEMAKER, NOT_ALLOWED),
    ("sagemaker.Deployer", "sagemaker:DeleteEndpoint", ENDPOINT.format(PRODS), {}, NOT_ALLOWED),
    ("sagemaker.Deployer", "sagemaker:CreateModel", SERVED.format(PRODS), {}, NOT_ALLOWED),
    ("sagemaker.Deployer", "sagemaker:CreateTrainingJob", JOB.format(OURS), {}, NOT_ALLOWED),
    ("addons.Sagemaker", "sagemaker:CreateEndpoint", ENDPOINT.format(OURS), {}, ALLOWED),
    ("addons.Sagemaker", "sagemaker:DeleteEndpoint", ENDPOINT.format(OURS), {}, ALLOWED),
    ("addons.Sagemaker", "sagemaker:DescribeEndpoint", ENDPOINT.format(OURS), {}, ALLOWED),
    ("addons.Sagemaker", "sagemaker:UpdateEndpoint", ENDPOINT.format(OURS), {}, ALLOWED),
    ("addons.Sagemaker", "sagemaker:AddTags", ENDPOINT.format(OURS), {}, ALLOWED),
    ("addons.Sagemaker", "sagemaker:ListTags", ENDPOINT.format(OURS), {}, ALLOWED),
    ("addons.Sagemaker", "sagemaker:DeleteTags", ENDPOINT.format(OURS), {}, ALLOWED),
    ("addons.Sagemaker", "sagemaker:CreateEndpointConfig", CONFIG.format(OURS), {}, ALLOWED),
    ("addons.Sagemaker", "sagemaker:DeleteEndpointConfig", CONFIG.format(OURS), {}, ALLOWED),
    ("addons.Sagemaker", "sagemaker:DescribeEndpointConfig", CONFIG.format(OURS), {}, ALLOWED),
    ("addons.Sagemaker", "sagemaker:CreateModel", SERVED.format(OURS), {}, ALLOWED),
    ("addons.Sagemaker", "sagemaker:DeleteModel", SERVED.format(OURS), {}, ALLOWED),
    ("addons.Sagemaker", "sagemaker:DescribeModel", SERVED.format(OURS), {}, ALLOWED),
    ("addons.Sagemaker", "iam:PassRole", f"{IAM}/ml-staging-sagemaker", TO_SAGEMAKER, ALLOWED),
    ("addons.Sagemaker", "iam:PassRole", f"{IAM}/ml-staging-sagemaker", TO_EC2, NOT_ALLOWED),
    ("addons.Sagemaker", "iam:PassRole", f"{IAM}/ml-prod-sagemaker", TO_SAGEMAKER, NOT_ALLOWED),
    ("addons.Sagemaker", "iam:PassRole", f"{IAM}/ml-staging-stack", TO_SAGEMAKER, NOT_ALLOWED),
    ("addons.Sagemaker", "sagemaker:DeleteEndpoint", ENDPOINT.format(PRODS), {}, NOT_ALLOWED),
    ("addons.Sagemaker", "sagemaker:CreateModel", SERVED.format(PRODS), {}, NOT_ALLOWED),
    ("addons.Sagemaker", "sagemaker:CreateTrainingJob", JOB.format(OURS), {}, NOT_ALLOWED),
    ("sagemaker.Deployer", "sagemaker:ListModels", "*", {}, ALLOWED),
    ("sagemaker.Deployer", "sagemaker:ListEndpointConfigs", "*", {}, ALLOWED),
    ("addons.Sagemaker", "sagemaker:CreateEndpoint", ENDPOINT.format("ml-dev-wine-1"), {}, ALLOWED),
    ("addons.Sagemaker", "s3:GetObject", MODEL, {}, NOT_ALLOWED),
    ("sagemaker.Deployer", "application-autoscaling:DeleteScalingPolicy", TARGET, OF_ENDPOINTS, ALLOWED),
    ("sagemaker.Deployer", "application-autoscaling:DeregisterScalableTarget", TARGET, OF_ENDPOINTS, ALLOWED),
    ("sagemaker.Deployer", "application-autoscaling:PutScalingPolicy", TARGET, OF_ENDPOINTS, ALLOWED),
    ("sagemaker.Deployer", "application-autoscaling:RegisterScalableTarget", TARGET, OF_ENDPOINTS, ALLOWED),
    ("sagemaker.Deployer", "application-autoscaling:DescribeScalableTargets", "*", {}, ALLOWED),
    ("sagemaker.Deployer", "application-autoscaling:DescribeScalingPolicies", "*", {}, ALLOWED),
    ("sagemaker.Deployer", "cloudwatch:DeleteAlarms", WATCH, {}, ALLOWED),
    ("sagemaker.Deployer", "cloudwatch:DescribeAlarms", WATCH, {}, ALLOWED),
    ("sagemaker.Deployer", "cloudwatch:PutMetricAlarm", WATCH, {}, ALLOWED),
    ("sagemaker.Deployer", "sagemaker:UpdateEndpointWeightsAndCapacities", ENDPOINT.format(OURS), {}, ALLOWED),
    ("sagemaker.Deployer", "application-autoscaling:RegisterScalableTarget", TARGET, OF_TABLES, NOT_ALLOWED),
    ("sagemaker.Deployer", "application-autoscaling:RegisterScalableTarget", TARGET, {}, NOT_ALLOWED),
    ("sagemaker.Deployer", "cloudwatch:DeleteAlarms", ALARM.format("ml-staging-wine-errors"), {}, NOT_ALLOWED),
    ("sagemaker.Deployer", "sagemaker:UpdateEndpointWeightsAndCapacities", ENDPOINT.format(PRODS), {}, NOT_ALLOWED),
    ("addons.Scaling", "application-autoscaling:DeleteScalingPolicy", TARGET, OF_ENDPOINTS, ALLOWED),
    ("addons.Scaling", "application-autoscaling:DeregisterScalableTarget", TARGET, OF_ENDPOINTS, ALLOWED),
    ("addons.Scaling", "application-autoscaling:PutScalingPolicy", TARGET, OF_ENDPOINTS, ALLOWED),
    ("addons.Scaling", "application-autoscaling:RegisterScalableTarget", TARGET, OF_ENDPOINTS, ALLOWED),
    ("addons.Scaling", "application-autoscaling:DescribeScalableTargets", "*", {}, ALLOWED),
    ("addons.Scaling", "application-autoscaling:DescribeScalingPolicies", "*", {}, ALLOWED),
    ("addons.Scaling", "cloudwatch:DeleteAlarms", WATCH, {}, ALLOWED),
    ("addons.Scaling", "cloudwatch:DescribeAlarms", WATCH, {}, ALLOWED),
    ("addons.Scaling", "cloudwatch:PutMetricAlarm", WATCH, {}, ALLOWED),
    ("addons.Scaling", "sagemaker:UpdateEndpointWeightsAndCapacities", ENDPOINT.format(OURS), {}, ALLOWED),
    ("addons.Scaling", "application-autoscaling:RegisterScalableTarget", TARGET, OF_TABLES, NOT_ALLOWED),
    ("addons.Scaling", "application-autoscaling:RegisterScalableTarget", TARGET, {}, NOT_ALLOWED),
    ("addons.Scaling", "cloudwatch:DeleteAlarms", ALARM.format("ml-staging-wine-errors"), {}, NOT_ALLOWED),
    ("addons.Scaling", "sagemaker:UpdateEndpointWeightsAndCapacities", ENDPOINT.format(PRODS), {}, NOT_ALLOWED),
    ("addons.Scaling", "sagemaker:DescribeEndpoint", ENDPOINT.format(OURS), {}, ALLOWED),
    ("addons.Scaling", "sagemaker:DescribeEndpointConfig", CONFIG.format(OURS), {}, ALLOWED),
    ("addons.Scaling", "sagemaker:UpdateEndpoint", ENDPOINT.format(OURS), {}, NOT_ALLOWED),
    # Training on SageMaker: the job, and who starts it.
    ("training.Training", "s3:GetObject", DATA, {}, ALLOWED),
    ("training.Training", "s3:ListBucket", BUCKET, {"s3:prefix": "dvc/files/md5/00/"}, ALLOWED),
    ("training.Training", "s3:PutObject", f"{BUCKET}/training/x", OVER, ALLOWED),
    ("training.Training", "s3:PutObject", MODEL, NEW, NOT_ALLOWED),
    ("training.Training", "s3:GetObject", MODEL, {}, NOT_ALLOWED),
    ("training.Training", "s3:PutObject", DATA, NEW, NOT_ALLOWED),
    ("training.Training", "s3:PutObject", f"{BUCKET}/requests/prod/x", NEW, NOT_ALLOWED),
    ("training.Training", "s3:DeleteObject", MODEL, {}, DENIED),
    ("training.Training", "s3:ListBucket", BUCKET, REQUESTS, NOT_ALLOWED),
    ("training.Trainer", "s3:GetObject", f"{BUCKET}/training/x", {}, ALLOWED),
    ("training.Trainer", "s3:PutObject", f"{BUCKET}/training/x", OVER, NOT_ALLOWED),
    ("training.Trainer", "s3:PutObject", MODEL, NEW, NOT_ALLOWED),
    ("training.Training", "ecr:GetAuthorizationToken", "*", {}, ALLOWED),
    ("training.Training", "ecr:BatchCheckLayerAvailability", WINE_IMAGE, {}, ALLOWED),
    ("training.Training", "ecr:BatchGetImage", WINE_IMAGE, {}, ALLOWED),
    ("training.Training", "ecr:GetDownloadUrlForLayer", WINE_IMAGE, {}, ALLOWED),
    ("training.Training", "logs:CreateLogGroup", TRAINING_LOGS, {}, ALLOWED),
    ("training.Training", "logs:CreateLogStream", TRAINING_LOGS, {}, ALLOWED),
    ("training.Training", "logs:DescribeLogStreams", TRAINING_LOGS, {}, ALLOWED),
    ("training.Training", "logs:PutLogEvents", TRAINING_LOGS, {}, ALLOWED),
    ("training.Training", "cloudwatch:PutMetricData", "*", OF_TRAINING, ALLOWED),
    ("training.Trainer", "sagemaker:CreateTrainingJob", JOB.format("ml-wine-1"), {}, ALLOWED),
    ("training.Trainer", "sagemaker:DescribeTrainingJob", JOB.format("ml-wine-1"), {}, ALLOWED),
    ("training.Trainer", "sagemaker:CreateTrainingJob", JOB.format("billing"), {}, NOT_ALLOWED),
    ("training.Trainer", "iam:PassRole", f"{IAM}/ml-sagemaker-training", TO_SAGEMAKER, ALLOWED),
    ("training.Trainer", "iam:PassRole", f"{IAM}/ml-staging-sagemaker", TO_SAGEMAKER, NOT_ALLOWED),
    ("training.Trainer", "sagemaker:CreateEndpoint", ENDPOINT.format(OURS), {}, NOT_ALLOWED),
    # Services on instances: an instance, and the workflow that asks CloudFormation.
    ("vm-roles.Instance", "s3:GetObject", MODEL, {}, ALLOWED),
    ("vm-roles.Instance", "s3:GetObject", SERVICE, {}, ALLOWED),
    ("vm-roles.Instance", "s3:GetObject", DATA, {}, NOT_ALLOWED),
    ("vm-roles.Instance", "s3:PutObject", SERVICE, NEW, NOT_ALLOWED),
    ("vm-roles.Instance", "s3:PutObject", f"{BUCKET}/requests/staging/x", NEW, NOT_ALLOWED),
    ("vm-roles.Instance", "s3:ListBucket", BUCKET, MODELS, NOT_ALLOWED),
    ("vm-roles.Instance", "logs:CreateLogStream", LOGS.format("/ml/vm/ml-staging-wine-vm:log-stream:i-1"), {}, ALLOWED),
    ("vm-roles.Instance", "logs:PutLogEvents", LOGS.format("/ml/vm/ml-staging-wine-vm:log-stream:i-1"), {}, ALLOWED),
    ("vm-roles.Instance", "logs:PutLogEvents", LOGS.format("/ml/vm/ml-prod-wine-vm:log-stream:i-1"), {}, NOT_ALLOWED),
    ("vm-roles.Instance", "logs:DeleteLogGroup", LOGS.format("/ml/vm/ml-staging-wine-vm"), {}, NOT_ALLOWED),
    ("vm-roles.Instance", "elasticloadbalancing:DescribeTargetHealth", "*", {}, ALLOWED),
    ("vm-roles.Instance", "cloudformation:SignalResource", STACK, {}, ALLOWED),
    ("vm-roles.Instance", "cloudformation:SignalResource", PRODS_STACK, {}, NOT_ALLOWED),
    ("vm-roles.Instance", "ec2:TerminateInstances", INSTANCE, {}, NOT_ALLOWED),
    ("vm-roles.Deployer", "cloudformation:CreateChangeSet", STACK, AS_MAKER, ALLOWED),
    ("vm-roles.Deployer", "cloudformation:DeleteStack", STACK, AS_MAKER, ALLOWED),
    ("vm-roles.Deployer", "cloudformation:DeleteChangeSet", STACK, {}, ALLOWED),
    ("vm-roles.Deployer", "cloudformation:DescribeChangeSet", STACK, {}, ALLOWED),
    ("vm-roles.Deployer", "cloudformation:DescribeStackEvents", STACK, {}, ALLOWED),
    ("vm-roles.Deployer", "cloudformation:DescribeStacks", STACK, {}, ALLOWED),
    ("vm-roles.Deployer", "cloudformation:ExecuteChangeSet", STACK, {}, ALLOWED),
    ("vm-roles.Deployer", "cloudformation:ListChangeSets", STACK, {}, ALLOWED),
    ("vm-roles.Deployer", "cloudformation:TagResource", STACK, {}, ALLOWED),
    ("vm-roles.Deployer", "cloudformation:UpdateTerminationProtection", STACK, {}, ALLOWED),
    ("vm-roles.Deployer", "iam:PassRole", f"{IAM}/ml-staging-stack", TO_CLOUDFORMATION, ALLOWED),
    ("vm-roles.Deployer", "ssm:GetParameters", IMAGE, {}, ALLOWED),
    ("vm-roles.Deployer", "cloudformation:CreateChangeSet", STACK, AS_ADMINISTRATOR, NOT_ALLOWED),
    ("vm-roles.Deployer", "cloudformation:CreateChangeSet", STACK, {}, NOT_ALLOWED),
    ("vm-roles.Deployer", "cloudformation:DeleteStack", STACK, {}, NOT_ALLOWED),
    ("vm-roles.Deployer", "cloudformation:CreateChangeSet", PRODS_STACK, AS_MAKER, NOT_ALLOWED),
    ("vm-roles.Deployer", "cloudformation:ExecuteChangeSet", PRODS_STACK, {}, NOT_ALLOWED),
    ("vm-roles.Deployer", "iam:PassRole", f"{IAM}/ml-staging-vm", TO_EC2, NOT_ALLOWED),
    ("vm-roles.Deployer", "iam:PassRole", f"{IAM}/ml-staging-stack", TO_EC2, NOT_ALLOWED),
    ("vm-roles.Deployer", "ec2:RunInstances", INSTANCE, {}, NOT_ALLOWED),
    ("vm-roles.Deployer", "ssm:GetParameters", f"arn:aws:ssm:{PLACE}:parameter/password", {}, NOT_ALLOWED),
    ("vm-roles.Previewer", "cloudformation:CreateChangeSet", STACK, AS_MAKER, ALLOWED),
    ("vm-roles.Previewer", "cloudformation:DeleteChangeSet", STACK, {}, ALLOWED),
    ("vm-roles.Previewer", "cloudformation:DescribeChangeSet", STACK, {}, ALLOWED),
    ("vm-roles.Previewer", "cloudformation:DescribeStacks", STACK, {}, ALLOWED),
    ("vm-roles.Previewer", "cloudformation:ListChangeSets", STACK, {}, ALLOWED),
    ("vm-roles.Previewer", "cloudformation:TagResource", STACK, {}, ALLOWED),
    ("vm-roles.Previewer", "iam:PassRole", f"{IAM}/ml-staging-stack", TO_CLOUDFORMATION, ALLOWED),
    ("vm-roles.Previewer", "ssm:GetParameters", IMAGE, {}, ALLOWED),
    ("vm-roles.Previewer", "cloudformation:CreateChangeSet", STACK, AS_ADMINISTRATOR, NOT_ALLOWED),
    ("vm-roles.Previewer", "cloudformation:ExecuteChangeSet", STACK, {}, NOT_ALLOWED),
    ("vm-roles.Previewer", "cloudformation:DeleteStack", STACK, AS_MAKER, NOT_ALLOWED),
    # CloudFormation itself, for the stacks of one environment. What it may do is compared with its schemas below.
    ("vm-roles.Maker", "iam:PassRole", f"{IAM}/ml-staging-vm", TO_EC2, ALLOWED),
    ("vm-roles.Maker", "iam:PassRole", f"{IAM}/ml-prod-vm", TO_EC2, NOT_ALLOWED),
    ("vm-roles.Maker", "iam:PassRole", f"{IAM}/ml-staging-vm", {}, NOT_ALLOWED),
    ("vm-roles.Maker", "iam:CreateRole", f"{IAM}/ml-staging-vm", {}, NOT_ALLOWED),
    ("vm-roles.Maker", "ec2:AuthorizeSecurityGroupIngress", GROUP, MARKED, ALLOWED),
    ("vm-roles.Maker", "ec2:AuthorizeSecurityGroupIngress", GROUP, OF_PROD, NOT_ALLOWED),
    ("vm-roles.Maker", "ec2:DeleteSecurityGroup", GROUP, {}, NOT_ALLOWED),
    ("vm-roles.Maker", "ec2:TerminateInstances", INSTANCE, MARKED, NOT_ALLOWED),
    ("vm-roles.Maker", "ec2:CreateTags", GROUP, {"ec2:createaction": "CreateSecurityGroup"}, ALLOWED),
    ("vm-roles.Maker", "ec2:CreateTags", GROUP, {}, NOT_ALLOWED),
    ("vm-roles.Maker", "ec2:RunInstances", INSTANCE, BY_TEMPLATE, ALLOWED),
    ("vm-roles.Maker", "ec2:RunInstances", INSTANCE, {}, NOT_ALLOWED),
    ("vm-roles.Maker", "elasticloadbalancing:DeleteLoadBalancer", BALANCER, MARKED, ALLOWED),
    ("vm-roles.Maker", "elasticloadbalancing:DeleteLoadBalancer", BALANCER, OF_PROD, NOT_ALLOWED),
    ("vm-roles.Maker", "autoscaling:UpdateAutoScalingGroup", SCALED, {}, ALLOWED),
    ("vm-roles.Maker", "autoscaling:UpdateAutoScalingGroup", PRODS_SCALED, {}, NOT_ALLOWED),
    ("vm-roles.Maker", "logs:DeleteLogGroup", LOGS.format("/ml/vm/ml-staging-wine-vm"), {}, ALLOWED),
    ("vm-roles.Maker", "logs:DeleteLogGroup", LOGS.format("/ml/vm/ml-prod-wine-vm"), {}, NOT_ALLOWED),
    ("vm-roles.Maker", "cloudwatch:DeleteAlarms", ALARM.format("ml-prod-wine-vm-errors"), {}, NOT_ALLOWED),
    ("vm-roles.Maker", "route53:ChangeResourceRecordSets", HOST_ZONE, {}, ALLOWED),
    ("vm-roles.Maker", "route53:ChangeResourceRecordSets", "arn:aws:route53:::hostedzone/Z1", {}, NOT_ALLOWED),
    ("vm-roles.Maker", "s3:GetObject", MODEL, {}, NOT_ALLOWED),
    # Archives of services.
    ("github.ModelWriter", "s3:PutObject", SERVICE, NEW, ALLOWED),
    ("github.ModelWriter", "s3:GetObject", SERVICE, {}, ALLOWED),
    ("github.ModelWriter", "s3:PutObject", SERVICE, OVER, DENIED),
    ("github.ModelPrune", "s3:DeleteObject", SERVICE, {}, NOT_ALLOWED),
    ("anybody", "s3:PutObject", SERVICE, OVER, DENIED),
    ("anybody", "s3:DeleteObject", SERVICE, {}, DENIED),
    ("addons.Autoscaler", "autoscaling:DescribeAutoScalingGroups", "*", {}, ALLOWED),
    ("addons.Autoscaler", "autoscaling:DescribeAutoScalingInstances", "*", {}, ALLOWED),
    ("addons.Autoscaler", "autoscaling:DescribeLaunchConfigurations", "*", {}, ALLOWED),
    ("addons.Autoscaler", "autoscaling:DescribeScalingActivities", "*", {}, ALLOWED),
    ("addons.Autoscaler", "autoscaling:DescribeTags", "*", {}, ALLOWED),
    ("addons.Autoscaler", "ec2:DescribeImages", "*", {}, ALLOWED),
    ("addons.Autoscaler", "ec2:DescribeInstanceTypes", "*", {}, ALLOWED),
    ("addons.Autoscaler", "ec2:DescribeLaunchTemplateVersions", "*", {}, ALLOWED),
    ("addons.Autoscaler", "ec2:GetInstanceTypesFromInstanceRequirements", "*", {}, ALLOWED),
    ("addons.Autoscaler", "eks:DescribeNodegroup", f"arn:aws:eks:{PLACE}:nodegroup/acme/a/1", {}, ALLOWED),
    ("addons.Autoscaler", "autoscaling:SetDesiredCapacity", NODES, OF_ACME, ALLOWED),
    ("addons.Autoscaler", "autoscaling:TerminateInstanceInAutoScalingGroup", NODES, OF_ACME, ALLOWED),
    ("addons.Autoscaler", "autoscaling:SetDesiredCapacity", NODES, OF_OTHER, NOT_ALLOWED),
    ("addons.Autoscaler", "autoscaling:SetDesiredCapacity", SCALED, {}, NOT_ALLOWED),
    ("addons.Autoscaler", "autoscaling:DeleteAutoScalingGroup", NODES, OF_ACME, NOT_ALLOWED),
    # Whom the templates make no role for, such as an administrator: what the bucket itself refuses.
    ("anybody", "s3:PutObject", MODEL, NEW, ALLOWED),
    ("anybody", "s3:PutObject", MODEL, OVER, DENIED),
    ("anybody", "s3:PutObject", MODEL, PART, ALLOWED),
    ("anybody", "s3:PutObject", DATA, OVER, ALLOWED),
    ("anybody", "s3:PutObject", DATA, PART, ALLOWED),
    ("anybody", "s3:DeleteObject", MODEL, {}, DENIED),
    ("anybody", "s3:DeleteObject", DATA, {}, ALLOWED),
    ("anybody", "s3:DeleteObjectVersion", MODEL, {}, DENIED),
    ("anybody", "s3:PutObjectRetention", MODEL, {}, DENIED),
]  # fmt: skip
