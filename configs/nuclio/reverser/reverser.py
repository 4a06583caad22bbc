# @nuclio.configure
#
# function.yaml:
#   apiVersion: "nuclio.io/v1"
#   kind: NuclioFunction
#   metadata:
#     name: reverser
#   spec:
#     handler: reverser:handler
#     runtime: python
#     triggers:
#       web:
#         kind: http
#         maxWorkers: 2

"""Answers with the body back to front, told when it is not text."""


def handler(context, event):
    context.logger.debug_with("reversing", size=event.size, method=event.method)
    try:
        return event.body.decode()[::-1]
    except UnicodeDecodeError:
        return 400, "only text can be reversed"
