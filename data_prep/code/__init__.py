"""What the code data sets share: functions, calls, execution in the sandbox, questions and pictures of code."""
